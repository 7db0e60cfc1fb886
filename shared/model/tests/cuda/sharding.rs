//! Data-parallel training, in tests.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cognate_model::LlamaConfig;

use crate::devices::{device, ordered};
use crate::sharding_checks::{
    a_bad_gradient_is_skipped_by_all, goes_on_from_files, ranks, shares_are_parts_of_the_whole, two_are_one,
};
use crate::shim_machine::{Order, sanitized};
use crate::world::{config, model};

#[test]
fn two_ranks_are_one_within_rounding_and_bitwise_themselves() {
    sanitized("sharding::two_ranks_are_one_within_rounding_and_bitwise_themselves", |library| {
        let tied = LlamaConfig { tie_word_embeddings: true, ..config() };
        let run = |order| two_are_one(&|_| ordered(library, order), &tied, 1);
        assert!(run(Order::Forward) == run(Order::Random(1)), "two runs, other orders of the threads");
    });
}

#[test]
fn shares_are_updated_as_parts_of_the_whole() {
    sanitized("sharding::shares_are_updated_as_parts_of_the_whole", |library| {
        // With 11, some ranks have nothing of a norm, which is 9 packs.
        for size in [2, 11] {
            shares_are_parts_of_the_whole(&|_| device(library, false), &config(), size);
        }
    });
}

#[test]
fn ranks_go_on_from_their_files() {
    sanitized("sharding::ranks_go_on_from_their_files", |library| {
        goes_on_from_files(&|_| device(library, false), &config());
    });
}

#[test]
fn a_gradient_that_is_no_number_changes_nothing() {
    sanitized("sharding::a_gradient_that_is_no_number_changes_nothing", |library| {
        a_bad_gradient_is_skipped_by_all(&|_| device(library, false), &config());
    });
}

#[test]
fn masters_that_were_not_gathered_are_not_read() {
    sanitized("sharding::masters_that_were_not_gathered_are_not_read", |library| {
        let refused = ranks(2, &|_| device(library, false), &model(&config(), 1), |rank| {
            rank.step(1);
            let slot = &rank.model.slots()[0];
            catch_unwind(AssertUnwindSafe(|| rank.model.values(slot))).is_err()
        });
        assert_eq!(refused, [true, true]);
    });
}
