//! Decoding, in tests.

use cognate_model::cuda::{self, Purpose};
use cognate_model::{LlamaConfig, ModelError, Request};
use cognate_random::Key;

use crate::decoding_checks::{OPTIONS, decoding, hidden, sample};
use crate::devices::{device, on_devices};
use crate::shim_machine::sanitized;
use crate::world::{config, documents, model, on};

#[test]
fn samples_are_those_of_the_cpu_and_of_no_neighbour() {
    sanitized("decoding::samples_are_those_of_the_cpu_and_of_no_neighbour", |library| {
        let tied = LlamaConfig { tie_word_embeddings: true, ..config() };
        decoding(&device(library, false), &tied, true);
    });
}

#[test]
fn a_loop_gives_the_same_bits_in_every_order() {
    sanitized("decoding::a_loop_gives_the_same_bits_in_every_order", |library| {
        let cpu = model(&config(), 11);
        on_devices(library, |device| {
            let gpu = on(&cpu, device, Purpose::Inference);
            let prompts = [(documents(8, 1).tokens[..20].to_vec(), 2), (vec![7, 8], 1)];
            sample(&gpu, &prompts, 3, 4).into_values().map(|(text, _)| text).collect::<Vec<_>>()
        });
    });
}

fn capacity(result: Result<impl Sized, ModelError>) -> bool {
    matches!(result, Err(ModelError::Capacity(_)))
}

#[test]
fn what_has_no_room_is_refused() {
    sanitized("decoding::what_has_no_room_is_refused", |library| {
        let device = device(library, false);
        let gpu = on(&model(&config(), 12), &device, Purpose::Inference);
        let mut decoder = cuda::Decoder::new(&gpu, 2, 4).unwrap();
        let request = |prompt, samples| [Request { prompt, samples }];
        assert!(capacity(decoder.start(&gpu, &request(&[1], 3))));
        let long = decoder.start(&gpu, &request(&[1, 2, 3, 4, 5], 1));
        assert!(matches!(long, Err(ModelError::TooLong { context: 4, .. })));
        let beyond = decoder.start(&gpu, &request(&[251], 1));
        assert!(matches!(beyond, Err(ModelError::Token { token: 251, .. })));
        decoder.start(&gpu, &request(&[1, 2, 3], 1)).unwrap();
        assert!(capacity(decoder.step(&gpu)), "nothing was drawn");
        for _ in 0..2 {
            let number = [(Key::new(1), 0)];
            decoder.sample(&gpu, &[OPTIONS], &number).unwrap();
            assert!(capacity(decoder.start(&gpu, &request(&[1], 1))), "between draw and step");
            if decoder.length(0) == 4 {
                assert!(matches!(decoder.step(&gpu), Err(ModelError::TooLong { length: 5, .. })));
            } else {
                decoder.step(&gpu).unwrap();
            }
        }
    });
}

#[test]
fn hidden_states_are_those_of_the_cpu() {
    sanitized("decoding::hidden_states_are_those_of_the_cpu", |library| {
        hidden(&device(library, false), &config());
    });
}
