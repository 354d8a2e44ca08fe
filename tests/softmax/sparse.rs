//! Top-k softmax, sparsemax, entmax and their losses against their twins.

use proptest::prelude::*;
use wgpu_attention::softmax::reference::{HostInputs, HostOutputs, softmax};
use wgpu_attention::{
    Context, ContextOptions, DType, HostView, Softmax, SoftmaxBackward, SoftmaxBackwardShapes, SoftmaxConfig,
    SoftmaxKind, SoftmaxScale, SoftmaxShapes, wgpu,
};

use crate::case::{Case, Named, Scales};
use crate::common::{self, assert_same_bits, context, device_with, own_and_any_gpu};

const LINEAR: SoftmaxKind = SoftmaxKind::Sparsemax;
const SQUARE: SoftmaxKind = SoftmaxKind::Entmax { alpha: 1.5 };
const ANY: SoftmaxKind = SoftmaxKind::Entmax { alpha: 1.3 };

#[test]
fn sparse_rows_of_every_width() {
    for (kernel, widths) in
        [&[1, 2, 3, 4][..], &[5, 15, 16], &[17, 63, 64], &[65, 127, 129, 256], &[257, 1000, 1024], &[1025, 4096]]
            .into_iter()
            .enumerate()
    {
        for &columns in widths {
            let kind = [SQUARE, LINEAR, ANY][kernel % 3];
            let rows = [5, 67, 19, 18, 7, 4][kernel];
            Case::new(rows, columns).options([0, 21, 52, 4, 17, 45][kernel]).of(kind).labelled().check("width");
        }
    }
}

#[test]
fn sparse_rows_long_and_split() {
    for (rows, columns, flags, kind) in [
        (3, 4097, 0, LINEAR),
        (3, 9001, 29, ANY),
        (20, 5000, 0, SQUARE),
        (3, 16_384, 61, SQUARE),
        (4, 40_003, 21, LINEAR),
        (2, 20_000, 53, ANY),
    ] {
        let mut case = Case::new(rows, columns).options(flags).of(kind).labelled();
        case.naive_runs = 2;
        case.check("long");
    }
}

#[test]
fn a_million_columns_of_sparse_rows() {
    for (flags, odd, kind) in [(20, false, LINEAR), (4, true, ANY)] {
        let mut case = Case::new(2, 1_000_001 - usize::from(!odd)).options(flags).of(kind).labelled();
        case.naive_runs = 1;
        case.check_on(context(), "a million", &[odd]);
    }
    // Equal columns, all of the support.
    let mut case = Case::new(1, 1_000_000).of(LINEAR);
    case.x.fill(3.0);
    let out = case.run(false);
    assert!(out[0].2.iter().all(|p| (p * 1e6 - 1.0).abs() < 1e-5) && out[2].2 == [1e6], "{:?}", &out[2]);
}

#[test]
fn alphas_of_rows_and_their_gradient() {
    for (columns, scales) in
        [(12, Scales::PerRow), (300, Scales::One), (5000, Scales::PerRow), (20_000, Scales::PerRow)]
    {
        let mut case = Case::new(5, columns).options(20).of(ANY).alphas(scales).labelled();
        case.naive_runs = 3;
        case.alpha[1..4].copy_from_slice(&[2.0, 1.5, 1.0 + 1.0 / 256.0]);
        case.check_on(context(), "alphas", &[columns == 300]);
    }
    // Near 1, where it has a limit; and what is no alpha of a row.
    let mut case = Case::new(5, 40).of(ANY).alphas(Scales::PerRow).labelled();
    case.alpha.fill(1.0 + f32::EPSILON);
    case.check("near 1");
    for alpha in [1.0, 2.001, f32::NAN, -1.5, f32::INFINITY] {
        case.alpha[2] = alpha;
        for (name, shape, out) in case.run(true).into_iter().chain(case.run_backward(true)) {
            let width = out.len() / shape[0];
            for (at, own) in out.iter().enumerate() {
                let is_nan = own.is_nan() || name == "support" && *own == 0.0;
                assert_eq!(is_nan, at / width == 2, "alpha {alpha}: {name} {at}: {own}");
            }
        }
    }
}

#[test]
fn closely_spaced_scores_and_offsets() {
    for kind in [LINEAR, SQUARE, SoftmaxKind::Entmax { alpha: 1.9 }] {
        for (columns, step) in [(60, 1.0 / 64.0), (5000, 1e-6), (20_000, 1.0 / 1024.0)] {
            let mut case = Case::new(2, columns).of(kind).labelled();
            case.naive_runs = 2;
            for (at, x) in case.x.iter_mut().enumerate() {
                *x = (at * 37 % columns) as f32 * step;
            }
            case.check_on(context(), "closely spaced", &[false]);
            // Of powers of two, an offset changes no digit.
            if step == 1.0 / 64.0 || step == 1.0 / 1024.0 {
                let alone = case.run(false);
                case.x.iter_mut().for_each(|x| *x += 8192.0);
                for ((name, _, a), (.., b)) in alone.iter().zip(&case.run(false)) {
                    assert_same_bits(&format!("{kind:?} {name}"), a, b);
                }
            }
        }
    }
}

#[test]
fn losses_are_small_where_they_should_be() {
    for kind in [SoftmaxKind::Softmax, LINEAR, SQUARE, ANY] {
        let mut case = Case::new(4, 33).of(kind);
        case.labels = Some(vec![5, 33, u32::MAX, 7]);
        case.masked = true;
        case.mask.fill(1);
        case.mask[3 * 33 + 7] = 0;
        case.x[5] += 30.0;
        for odd in [false, true] {
            let out = case.run(odd);
            let loss = &out.iter().find(|(name, ..)| *name == "loss").expect("a loss").2;
            let want = softmax(&case.config, &case.host()).expect("the twin").loss;
            assert!((f64::from(loss[0]) - want[0]).abs() <= 1e-5 * want[0] && loss[0] >= 0.0, "{loss:?}, {want:?}");
            assert!(loss[1].is_nan() && loss[2] == 0.0 && loss[3] == f32::INFINITY, "{kind:?} {loss:?}");
            let out = case.run_backward(odd);
            assert!(out[0].2[33..66].iter().all(|dx| dx.is_nan()), "{kind:?}");
            assert!(out[0].2[66..].iter().all(|dx| dx.is_finite()), "{kind:?}");
        }
    }
    for (columns, flags) in [(37, 52), (5000, 29), (20_000, 7)] {
        let mut case = Case::new(4, columns).options(flags).of(SoftmaxKind::Softmax).labelled();
        case.naive_runs = 3;
        case.check("cross-entropy");
    }
}

#[test]
fn sparse_rows_without_a_column_or_with_nan() {
    for columns in [5, 300, 5000, 20_000] {
        let mut case = Case::new(4, columns).of(if columns == 300 { ANY } else { LINEAR }).labelled();
        case.x[..columns].fill(f32::NEG_INFINITY);
        case.x[2 * columns + columns / 3] = if columns == 300 { f32::INFINITY } else { f32::NAN };
        case.labels = Some(vec![u32::MAX, 1, 1, 0]);
        for (name, shape, out) in case.run(true).into_iter().chain(case.run_backward(true)) {
            let width = out.len() / shape[0];
            for (at, own) in out.iter().enumerate() {
                match at / width {
                    0 => assert_eq!(*own, 0.0, "{name} {at}"),
                    2 => assert!(own.is_nan() || name == "support" && *own == 0.0, "{name} {at}: {own}"),
                    _ => assert!(own.is_finite(), "{name} {at}"),
                }
            }
        }
    }
}

#[test]
fn masks_made_of_the_lowest_float() {
    for (columns, tau) in [(40, 1.0), (40, 10.0), (20_000, 100.0)] {
        let mut case = Case::new(2, columns).of(LINEAR);
        case.config = case.config.scale(SoftmaxScale::Temperature(tau));
        case.x[..columns].fill(f32::MIN);
        case.x[columns..columns + columns / 2].fill(f32::MIN);
        let p = &case.run(false)[0].2;
        assert!(p[..columns].iter().all(|p| (p * columns as f32 - 1.0).abs() < 1e-5), "{:?}", &p[..4]);
        assert!(p[columns..columns + columns / 2].iter().all(|p| *p == 0.0));
    }
}

#[test]
fn sparse_tensors_stored_in_16_bits() {
    for dtype in [DType::F16, DType::BF16] {
        for (columns, kind) in [(64, LINEAR), (301, ANY), (9001, SQUARE)] {
            for (kernels, context) in own_and_any_gpu() {
                let mut case = Case::new(4, columns).options(4).of(kind).labelled().stored(dtype);
                case.naive_runs = 3;
                case.check_on(context, &format!("{dtype:?}{kernels}"), &[columns == 64, columns != 64]);
            }
        }
    }
}

#[test]
fn sparse_rows_give_the_same_bits_on_every_run() {
    let whole = context();
    let options = ContextOptions { max_flops_per_dispatch: 1 << 20, ..whole.capabilities().options };
    let pieces = Context::with_options(whole.device().clone(), whole.queue().clone(), options);
    for (rows, columns) in [(9, 300), (2, 40_000)] {
        let case = Case::new(rows, columns).options(53).of(ANY).alphas(Scales::One).labelled();
        let run = |context: &Context| -> Named {
            let forward = case.run_on(context, false).expect("a row");
            forward.into_iter().chain(case.run_backward_on(context, false).expect("a row")).collect()
        };
        let first = run(whole);
        for again in [run(whole), run(whole), run(&pieces)] {
            first.iter().zip(&again).for_each(|((name, _, a), (.., b))| assert_same_bits(name, a, b));
        }
    }
}

#[test]
fn the_k_largest_of_rows() {
    for (rows, columns, k, flags) in
        [(5, 3, 3, 0), (9, 37, 1, 17), (7, 300, 30, 54), (3, 5000, 50, 7), (2, 20_000, 3, 29), (1, 70_001, 1000, 20)]
    {
        let mut case = Case::new(rows, columns).options(flags).of(SoftmaxKind::TopK { k });
        case.naive_runs = 2;
        // Ties, of zeros too.
        case.x.iter_mut().for_each(|x| *x = (*x * 4.0).round() / 4.0);
        case.check("top k");
    }
    let mut case = Case::new(3, 7).of(SoftmaxKind::TopK { k: 2 });
    case.x.copy_from_slice(&[1.0, 2.0, 2.0, 0.0, 2.0, 1.0, 2.0].repeat(3));
    case.x[7..14].fill(-0.0);
    case.x[9] = 0.0;
    case.x[20] = f32::NAN;
    let p = &case.run(false)[0].2;
    assert_eq!(p[..14], [0.0, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0]);
    assert!(p[14..].iter().all(|p| p.is_nan()), "{p:?}");
}

/// A context whose workspace has room for so little.
fn of_workspace(max_workspace_bytes: u64) -> Context {
    let whole = context();
    let options = ContextOptions { max_workspace_bytes, ..whole.capabilities().options };
    Context::with_options(whole.device().clone(), whole.queue().clone(), options)
}

#[test]
fn rows_are_walked_in_blocks_where_the_workspace_is_small() {
    let top = SoftmaxKind::TopK { k: 3 };
    for (room, rows, columns, scales) in [(4096, 300, 13, 3), (4096, 301, 13, 1), (3072, 9, 20_000, 1)] {
        let context = of_workspace(room);
        // Of a row that is split, a top-k has more in the workspace.
        for kind in [SoftmaxKind::Softmax, ANY, top].into_iter().filter(|&kind| columns == 13 || kind != top) {
            let mut case = Case::new(rows, columns).options(4 | scales << 4).of(kind);
            case.naive_runs = 3;
            if kind != top {
                case = case.labelled();
            }
            if kind == ANY {
                case = case.alphas(if scales == 3 { Scales::One } else { Scales::PerRow });
            }
            case.check_on(&context, "blocks", &[false]);
            // What belongs to a row does not depend on the others.
            let (whole, blocks) = (case.run(true), case.run_on(&context, true).expect("blocks"));
            whole.iter().zip(&blocks).for_each(|((name, _, a), (.., b))| assert_same_bits(name, a, b));
        }
    }
}

#[test]
fn many_rows_need_no_more_workspace() {
    let context = device_with(wgpu::Limits::default()).expect("a device with default limits");
    for kind in [SoftmaxKind::Softmax, LINEAR, SoftmaxKind::TopK { k: 1 }] {
        // 32 MiB for what a block's rows have of their own, and their gradients.
        let is_labelled = !matches!(kind, SoftmaxKind::TopK { .. });
        let config = SoftmaxConfig::new().kind(kind);
        let shapes = SoftmaxShapes {
            labels: is_labelled,
            loss: is_labelled,
            row_scale: Some(1),
            ..SoftmaxShapes::new(1 << 25, 1)
        };
        let plan = Softmax::new(&context, config).expect("a config").plan(&shapes, DType::F32).expect("many rows");
        assert!(plan.workspace_bytes() <= 64 << 20, "{kind:?}: {}", plan.workspace_bytes());
        let shapes =
            SoftmaxBackwardShapes { row_scale: Some(1), drow_scale: true, ..SoftmaxBackwardShapes::new(1 << 25, 1) };
        let back = SoftmaxBackward::new(&context, config).expect("a config");
        let plan = back.plan(&shapes, DType::F32).expect("many rows");
        assert!(plan.workspace_bytes() <= 64 << 20, "{kind:?}: {}", plan.workspace_bytes());
    }
}

proptest! {
    #![proptest_config(common::any(24))]
    #[test]
    fn any_sparse_rows_agree_with_the_twins(
        rows in 1usize..40, columns in 1usize..300, kind in 0usize..4, k in 1u32..300, flags in 0usize..3,
    ) {
        let kind = [LINEAR, SQUARE, ANY, SoftmaxKind::TopK { k: k.min(columns as u32) }][kind];
        // Few kernels: options in three sets.
        let case = Case::new(rows, columns).options([0, 21, 52][flags]).of(kind);
        let case = if case.is_sparse() { case.labelled() } else { case };
        case.check("any");
    }
}

fn by_twin(x: &[f32], kind: SoftmaxKind) -> HostOutputs<f64> {
    let labels = [1];
    let mut inputs = HostInputs::new(HostView::new(x, [1, x.len()]).expect("a row"));
    if !matches!(kind, SoftmaxKind::TopK { .. }) {
        inputs.labels = Some(HostView::new(&labels, [1]).expect("a label"));
    }
    softmax(&SoftmaxConfig::new().kind(kind), &inputs).expect("a row")
}

fn close(got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len());
    assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-7), "got {got:?}, want {want:?}");
}

#[test]
fn the_twins_sparse_rows_by_hand() {
    // τ = (1 + 0.5 − 1)/2; of a loss ½ − s_y + ½ Σ (s² − τ²) over the support.
    let out = by_twin(&[1.0, 0.5, -0.5], SoftmaxKind::Sparsemax);
    close(&out.p, &[0.75, 0.25, 0.0]);
    close(&out.loss, &[0.5 - 0.5 + 0.5 * (1.0 + 0.25 - 2.0 * 0.0625)]);
    close(&out.entropy, &[-0.75 * 0.75_f64.ln() - 0.25 * 0.25_f64.ln()]);
    assert_eq!(out.support, [2]);
    // [s/2 − τ]²: a and a + ¼ with a² + (a + ¼)² = 1.
    let a = (31.0_f64.sqrt() - 1.0) / 8.0;
    let out = by_twin(&[0.0, 0.5, -4.0], SoftmaxKind::Entmax { alpha: 1.5 });
    close(&out.p, &[a * a, (a + 0.25) * (a + 0.25), 0.0]);
    close(&by_twin(&[1.0, 3.0, 1.0, 3.0], SoftmaxKind::TopK { k: 3 }).p[2..], &[0.0, 1.0 / (2.0 + (-2.0_f64).exp())]);
}

#[test]
fn the_twins_identities_of_alpha() {
    // Closely spaced.
    let x: Vec<f32> = (0..60).map(|i| (i * 37 % 61) as f32 / 64.0 + 8.0).collect();
    let entmax = |alpha| by_twin(&x, SoftmaxKind::Entmax { alpha });
    close(&entmax(2.0).p, &by_twin(&x, SoftmaxKind::Sparsemax).p);
    let plain = by_twin(&x, SoftmaxKind::Softmax);
    let near = entmax(1.0 + 1.0 / (1 << 20) as f32);
    assert!(near.p.iter().zip(&plain.p).all(|(a, b)| (a - b).abs() < 1e-6));
    assert!((near.loss[0] - plain.loss[0]).abs() < 1e-4, "{:?} {:?}", near.loss, plain.loss);
    let mut last = u32::MAX;
    for alpha in [1.01, 1.2, 1.5, 1.7, 2.0] {
        let out = entmax(alpha);
        assert!((out.p.iter().sum::<f64>() - 1.0).abs() < 1e-12 && out.loss[0] > 0.0, "{alpha}");
        assert!(out.support[0] > 1 && out.support[0] <= last, "{alpha}: {:?}", out.support);
        last = out.support[0];
    }
    // The loss of a label that all p lies on is 0.
    let out = by_twin(&[0.0, 5.0, 1.0], SoftmaxKind::Sparsemax);
    close(&[out.p[1], out.loss[0]], &[1.0, 0.0]);
}
