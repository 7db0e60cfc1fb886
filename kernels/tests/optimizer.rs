//! AdamW and the gradient norm against double precision.

use cognate_kernels::{Device, Tensor, adamw, grad_norm};

#[test]
fn adamw_follows_the_formula_for_three_steps() {
    for n in [1usize, 17, 40_000] {
        let make = |f: &dyn Fn(usize) -> f32| {
            Tensor::from_slice(Device::Cpu, 1, n, &(0..n).map(f).collect::<Vec<_>>())
        };
        let mut w = make(&|i| (i as f32 * 0.7).sin());
        let (mut m, mut v) = (make(&|_| 0.0), make(&|_| 0.0));
        let mut want: Vec<f64> = w.f32().iter().map(|&x| f64::from(x)).collect();
        let (mut m64, mut v64) = (vec![0.0f64; n], vec![0.0f64; n]);
        for t in 1..=3 {
            let mut g = make(&|i| (i as f32 * 0.3 + t as f32).cos() * 0.1);
            let scale = 0.5;
            for i in 0..n {
                let grad = f64::from(g.f32()[i]) * scale;
                m64[i] = 0.9 * m64[i] + 0.1 * grad;
                v64[i] = 0.95 * v64[i] + 0.05 * grad * grad;
                let (mh, vh) = (m64[i] / (1.0 - 0.9f64.powi(t)), v64[i] / (1.0 - 0.95f64.powi(t)));
                want[i] = want[i] * (1.0 - 1e-2 * 0.1) - 1e-2 * mh / (vh.sqrt() + 1e-8);
            }
            let update = adamw::Update {
                lr: 1e-2,
                beta1: 0.9,
                beta2: 0.95,
                eps: 1e-8,
                weight_decay: 0.1,
                bias1: 1.0 - 0.9f32.powi(t),
                bias2: 1.0 - 0.95f32.powi(t),
                scale: scale as f32,
            };
            adamw::forward(&mut w, &mut g, &mut m, &mut v, update);
            assert!(g.f32().iter().all(|&g| g == 0.0), "gradients are spent");
        }
        for (got, want) in w.f32().iter().zip(&want) {
            assert!((f64::from(*got) - want).abs() < 1e-5, "{got} against {want}");
        }
    }
}

#[test]
fn the_norm_covers_every_tensor_and_tail() {
    let tensors: Vec<Tensor> = [3usize, 4097, 50_001]
        .iter()
        .map(|&n| {
            let values: Vec<f32> = (0..n).map(|i| ((i % 13) as f32 - 6.0) * 0.1).collect();
            Tensor::from_slice(Device::Cpu, 1, n, &values)
        })
        .collect();
    let want: f64 =
        tensors.iter().flat_map(|t| t.f32()).map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    let got = grad_norm::forward(tensors.iter(), &mut Vec::new());
    assert!((got - want).abs() < 1e-5 * want, "{got} against {want}");
}
