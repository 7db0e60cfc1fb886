//! The shim as a device.

use std::rc::Rc;

use cognate_model::cuda::Accelerator;
use libloading::Library;

use crate::shim_machine::{Order, Shim};

/// Runs `check` on devices that take their threads' turns in several orders, and holds all to the same
/// bits. `check` returns what else must agree.
pub fn on_devices<T: PartialEq + std::fmt::Debug>(
    library: &'static Library,
    check: impl Fn(&Rc<dyn Accelerator>) -> T,
) {
    let run = |order| {
        let shim = Rc::new(Shim::new(library, order, false));
        let device: Rc<dyn Accelerator> = Rc::clone(&shim) as _;
        (check(&device), shim.digest.get())
    };
    let first = run(Order::Forward);
    assert_ne!(first.1, 0, "a check reads something");
    for order in [Order::Reverse, Order::Random(1)] {
        assert!(run(order) == first, "results depend on the order of the threads");
    }
}

pub fn ordered(library: &'static Library, order: Order) -> Rc<dyn Accelerator> {
    Rc::new(Shim::new(library, order, false))
}

pub fn device(library: &'static Library, hopper: bool) -> Rc<dyn Accelerator> {
    Rc::new(Shim::new(library, Order::Random(3), hopper))
}
