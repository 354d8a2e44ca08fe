//! x
use wgpu_attention::attention::reference;
use wgpu_attention::*;
#[test]
fn smoke() {
    let ctx = Context::headless().unwrap();
    eprintln!("{:?}", ctx.device().adapter_info());
    let mut seed = 1u64;
    let mut rnd = move || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((seed >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 3.0
    };
    for (n, d) in [(5usize, 64usize), (77, 64), (70, 5), (300, 130)] {
        let mk = |r: &mut dyn FnMut() -> f32| (0..2 * n * d).map(|_| r()).collect::<Vec<f32>>();
        let (q, k, v) = (mk(&mut rnd), mk(&mut rnd), mk(&mut rnd));
        let s = [1, 2, n, d];
        for config in [
            AttentionConfig::new(),
            AttentionConfig::new().causal(Causal::BottomRight).softcap(2.0).scale(Scale::LOG_N),
        ] {
            let inputs = reference::HostInputs::new(
                HostView::new(&q, s).unwrap(),
                HostView::new(&k, s).unwrap(),
                HostView::new(&v, s).unwrap(),
            );
            let want = reference::attention(&config, &inputs).unwrap();
            let a = Attention::new(&ctx, config).unwrap();
            let (qb, kb, vb, ob) = (ctx.upload(&q), ctx.upload(&k), ctx.upload(&v), ctx.allocate(2 * n * d));
            let (lb, eb) = (ctx.allocate(2 * n), ctx.allocate(2 * n));
            let s = s.map(|x| x as u32);
            let mut out = AttentionOutputs::new(TensorView::f32(&ob, s));
            out.lse = Some(TensorView::f32(&lb, [1, 2, s[2]]));
            out.entropy = Some(TensorView::f32(&eb, [1, 2, s[2]]));
            let p = a
                .prepare(
                    AttentionInputs::new(TensorView::f32(&qb, s), TensorView::f32(&kb, s), TensorView::f32(&vb, s)),
                    out,
                )
                .unwrap();
            ctx.run(&p).unwrap();
            for (name, b, w) in [("o", &ob, &want.o), ("lse", &lb, &want.lse), ("ent", &eb, &want.entropy)] {
                let got = ctx.download(b).unwrap();
                let e = got.iter().zip(w).map(|(a, b)| (*a as f64 - b).abs()).fold(0.0, f64::max);
                eprintln!("{n} {d} {name} {e:e} {}", p.plan().kernel());
                assert!(e < 1e-5);
            }
        }
    }
}
