//! Decoding on a device: what is drawn, against the CPU op on the device's own logits, and against the CPU
//! model's log-probabilities of the whole text.

use std::collections::BTreeMap;
use std::rc::Rc;

use cognate_kernels::sampling;
use cognate_model::cuda::{self, Accelerator, Purpose};
use cognate_model::{Hidden, LlamaConfig, Model, Request, SampleOptions, SequenceId, Trainer};
use cognate_random::Key;

use super::world::{distance, documents, model, on};

pub const OPTIONS: SampleOptions = SampleOptions { temperature: 0.8, top_k: 40, top_p: 0.95 };

/// One sample: its text with the prompt, and the log-probability of each new token.
pub type Said = (Vec<u32>, Vec<f32>);

/// Samples each prompt (a length, and how many) up to `limit` tokens, `batch` sequences at a time; some end
/// early. The number of a token is keyed by sample and place alone.
pub fn sample(
    model: &cuda::Model,
    prompts: &[(Vec<u32>, usize)],
    batch: usize,
    limit: usize,
) -> BTreeMap<(usize, usize), Said> {
    let mut decoder = cuda::Decoder::new(model, batch, 300).unwrap();
    let mut queue: Vec<(usize, usize)> =
        prompts.iter().enumerate().flat_map(|(p, (_, samples))| (0..*samples).map(move |s| (p, s))).collect();
    queue.reverse();
    let (mut live, mut done) = (BTreeMap::<SequenceId, ((usize, usize), Said)>::new(), BTreeMap::new());
    loop {
        // All of one prompt's samples that fit start together and share it.
        while let Some(&(p, _)) = queue.last().filter(|_| decoder.free() > 0) {
            let mut together = Vec::new();
            while together.len() < decoder.free() && queue.last().is_some_and(|(next, _)| *next == p) {
                together.extend(queue.pop());
            }
            let request = Request { prompt: &prompts[p].0, samples: together.len() };
            let ids = decoder.start(model, &[request]).unwrap();
            let text = || (prompts[p].0.clone(), Vec::new());
            live.extend(ids.into_iter().zip(together).map(|(id, name)| (id, (name, text()))));
        }
        if live.is_empty() {
            return done;
        }
        let rows = decoder.live().to_vec();
        let key = |(p, s): (usize, usize)| Key::new(9).with(p).with(s);
        let numbers: Vec<(Key, u64)> =
            rows.iter().map(|id| (key(live[id].0), live[id].1.1.len() as u64)).collect();
        let logits: Vec<Vec<f32>> = (0..rows.len()).map(|row| decoder.logits(model, row).unwrap()).collect();
        let drawn = decoder.sample(model, &[OPTIONS], &numbers).unwrap().to_vec();
        let mut ended = Vec::new();
        for (row, (id, drawn)) in rows.iter().zip(&drawn).enumerate() {
            let (key, counter) = numbers[row];
            // A number within rounding of a boundary may fall on either side.
            let want = [0.0, 3e-6, -3e-6].map(|d| {
                sampling::row(&logits[row], &OPTIONS, (key.uniform(counter) + d).clamp(0.0, 0.999_999_9))
            });
            let want = want.iter().find(|want| want.token == drawn.token);
            let want = want.unwrap_or_else(|| panic!("row {row}: the CPU would not draw {}", drawn.token));
            assert!((want.logprob - drawn.logprob).abs() < 1e-4);
            let (name, said) = live.get_mut(id).unwrap();
            said.0.push(drawn.token);
            said.1.push(drawn.logprob);
            let early = said.1.len() >= 3 && drawn.token.is_multiple_of(5);
            if early || said.1.len() == limit {
                ended.push(*id);
                done.insert(*name, said.clone());
            }
        }
        decoder.finish(model, &ended).unwrap();
        ended.iter().for_each(|id| drop(live.remove(id)));
        decoder.step(model).unwrap();
    }
}

/// Mean and largest difference of the log-probabilities from those that `model` gives the whole texts.
fn differences(model: &Model, said: &BTreeMap<(usize, usize), Said>) -> (f32, f32) {
    let mut trainer = Trainer::new(model, 0);
    let (mut total, mut count, mut worst) = (0.0, 0.0, 0.0f32);
    for (text, logprobs) in said.values() {
        trainer.score(model, text, &[0, text.len() as u32], 1.0).unwrap();
        let want = &trainer.logprobs()[text.len() - logprobs.len()..];
        for (got, want) in logprobs.iter().zip(want) {
            total += (got - want).abs();
            worst = worst.max((got - want).abs());
            count += 1.0;
        }
    }
    assert!(count > 0.0 && worst.is_finite());
    (total / count, worst)
}

fn prompts() -> Vec<(Vec<u32>, usize)> {
    let all = documents(5, 3).tokens;
    // Longer than a split of decode attention, so that its first one is shared; on a page's border and
    // beside it; a single token.
    vec![(all[..262].to_vec(), 3), (all[50..66].to_vec(), 2), (all[70..83].to_vec(), 2), (vec![3], 1)]
}

fn bits(said: &BTreeMap<(usize, usize), Said>) -> Vec<(Vec<u32>, Vec<u32>)> {
    said.values().map(|(t, p)| (t.clone(), p.iter().map(|x| x.to_bits()).collect())).collect()
}

/// The loop with room for all and with refilled places. `alone`: neighbours change no bit, which is not
/// promised where the products are a vendor's.
pub fn decoding(device: &Rc<dyn Accelerator>, config: &LlamaConfig, alone: bool) {
    let cpu = model(config, 10);
    let gpu = on(&cpu, device, Purpose::Inference);
    let said = sample(&gpu, &prompts(), 8, 12);
    let (mean, worst) = differences(&cpu, &said);
    println!("log-probabilities: {mean:.4} in the mean, {worst:.4} at most");
    assert!(mean < 0.02 && worst < 0.15, "log-probabilities differ by {mean} in the mean, {worst} at most");
    // The bounds are tight enough to see a wrong angle.
    let wrong = model(&LlamaConfig { rope_theta: 2.0 * config.rope_theta, ..config.clone() }, 10);
    let (off, _) = differences(&wrong, &said);
    assert!(off > 3.0 * mean, "a wrong angle is {off} away, the right one {mean}");
    assert!(bits(&sample(&gpu, &prompts(), 8, 12)) == bits(&said), "two runs differ");
    // Three at a time: others beside them, other shapes, refilled places.
    let few = sample(&gpu, &prompts(), 3, 12);
    let (mean, worst) = differences(&cpu, &few);
    assert!(mean < 0.02 && worst < 0.15, "log-probabilities differ by {mean} in the mean, {worst} at most");
    assert!(!alone || bits(&few) == bits(&said), "a sample depends on its neighbours");
}

/// Hidden states of every layer.
pub fn hidden(device: &Rc<dyn Accelerator>, config: &LlamaConfig) {
    let cpu = model(config, 13);
    let gpu = on(&cpu, device, Purpose::Inference);
    let mut want = Vec::new();
    let d = documents(9, 1);
    Hidden::new(&cpu, 0).run(&cpu, &d.tokens, &d.starts, |_, x| want.push(x.f32().to_vec())).unwrap();
    let mut layers = 0;
    let mut hidden = cuda::Hidden::new(&gpu, 10).unwrap();
    let visit = |layer: usize, states: &cognate_kernels::Tensor| {
        assert_eq!(layer, layers);
        layers += 1;
        let error = distance(states.f32(), &want[layer]);
        assert!(error < 0.02, "layer {layer} is {error:.4} away");
    };
    hidden.run(&gpu, &d.tokens, &d.starts, visit).unwrap();
    assert_eq!(layers, config.num_hidden_layers + 1);
}
