//! The softmax and its backward pass on the GPU against their f64 twins.

#[path = "softmax/case.rs"]
mod case;
mod common;
#[path = "softmax/published.rs"]
mod published;
#[path = "softmax/sparse.rs"]
mod sparse;

use case::{Case, KAPPA, Named};
use common::{Tensor, assert_same_bits, context, own_and_any_gpu};
use proptest::prelude::*;
use wgpu_attention::softmax::reference::softmax;
use wgpu_attention::{
    Context, ContextOptions, DType, Softmax, SoftmaxBackward, SoftmaxBackwardInputs, SoftmaxBackwardShapes,
    SoftmaxConfig, SoftmaxGradients, SoftmaxInputs, SoftmaxKind, SoftmaxOutputs, SoftmaxScale, SoftmaxShapes,
    TensorView,
};

#[test]
fn rows_of_every_width() {
    // Widths that share a kernel share options.
    for (kernel, widths) in [
        &[1, 2, 3, 4][..],
        &[5, 15, 16],
        &[17, 63, 64],
        &[65, 127, 128, 129, 255, 256],
        &[257, 1000, 1024],
        &[1025, 4095, 4096],
    ]
    .into_iter()
    .enumerate()
    {
        for &columns in widths {
            let rows = [5, 67, 19, 18, 7, 4][kernel];
            Case::new(rows, columns).options([0, 21, 52, 6, 31, 45][kernel]).check("width");
        }
    }
}

#[test]
fn long_rows_whole_and_split() {
    for (rows, columns, flags) in [
        (3, 4097, 0),
        (3, 9001, 29),
        (600, 8192, 0),
        (3, 16_384, 63),
        (4, 40_003, 23),
        (1, 65_536, 63),
        (2, 20_000, 95),
    ] {
        let mut case = Case::new(rows, columns).options(flags);
        case.naive_runs = 3;
        case.check("long");
    }
}

#[test]
fn a_million_columns() {
    for (flags, odd) in [(21, false), (6, true)] {
        let mut case = Case::new(2, 1_000_001 - usize::from(!odd)).options(flags);
        case.naive_runs = 2;
        case.check_on(context(), "a million", &[odd]);
    }
}

#[test]
fn every_option() {
    for flags in [0, 7, 9, 18, 28, 37, 42, 51, 54, 63, 64, 87, 95, 127] {
        Case::new(5, 12).options(flags).check_on(context(), "short", &[flags % 2 == 0]);
        Case::new(3, 5000).options(flags).check_on(context(), "long", &[flags % 3 == 0]);
    }
}

#[test]
fn scales_of_every_kind() {
    use SoftmaxScale::{Fixed, KappaLogN, LogN, LogNInference, Temperature};
    for scale in [
        Temperature(2.5),
        Fixed(-0.7),
        Fixed(0.0),
        LogN { base: 512.0, floor: 16 },
        KappaLogN { kappa: -0.3 },
        LogNInference { train_len: 10 },
        LogNInference { train_len: 2000 },
    ] {
        let mut case = Case::new(5, 37).options(4);
        case.config = SoftmaxConfig::new().scale(scale);
        let shape = [case.rows, case.columns];
        let out = softmax(&case.config, &case.host()).expect("the twin");
        let got = &case.run(true)[0].2;
        for (at, (got, want)) in got.iter().zip(&out.p).enumerate() {
            assert!((f64::from(*got) - want).abs() < 1e-5, "{scale:?} {shape:?} {at}: got {got}, want {want}");
        }
    }
}

#[test]
fn tensors_stored_in_16_bits() {
    for dtype in [DType::F16, DType::BF16] {
        for (columns, flags) in [(7, 0), (64, 14), (301, 4), (9001, 17)] {
            for (kernels, context) in own_and_any_gpu() {
                let mut case = Case::new(4, columns).options(flags).stored(dtype);
                case.naive_runs = 3;
                case.check_on(context, &format!("{dtype:?}{kernels}"), &[columns == 64, columns != 64]);
            }
        }
    }
}

#[test]
fn rows_without_a_column_are_nothing() {
    for (columns, log) in [(3, false), (70, true), (20_000, false)] {
        let mut case = Case::new(3, columns).options(20);
        case.config.log = log;
        (case.lse, case.entropy) = (true, true);
        case.mask[columns..2 * columns].fill(0);
        case.x[..columns].fill(f32::NEG_INFINITY);
        (case.x[columns..2 * columns]).fill(f32::NAN);
        let minus_infinity = f32::NEG_INFINITY.to_bits();
        for odd in [false, true] {
            let out = case.run(odd);
            let p = if log { minus_infinity } else { 0 };
            assert!(out[0].2.iter().all(|own| own.to_bits() == p), "p: {:?}", &out[0].2[..3]);
            assert!(out[1].2.iter().all(|own| own.to_bits() == minus_infinity), "{:?}", out[1].2);
            assert!(out[2].2.iter().all(|own| *own == 0.0), "{:?}", out[2].2);
            for (name, _, gradient) in case.run_backward(odd) {
                assert!(gradient.iter().all(|own| *own == 0.0), "{name}");
            }
        }
    }
}

#[test]
fn nan_stays_in_its_row() {
    for columns in [5, 300, 5000, 20_000] {
        for nan in [f32::NAN, f32::INFINITY] {
            let mut case = Case::new(4, columns);
            (case.lse, case.entropy) = (true, true);
            case.x[columns + columns / 3] = nan;
            for (name, shape, out) in case.run(true).into_iter().chain(case.run_backward(true)) {
                let width = out.len() / shape[0];
                let right = out.iter().enumerate().all(|(at, own)| own.is_nan() == (at / width == 1));
                assert!(right, "{name} of {columns}: {:?}", &out[..out.len().min(20)]);
            }
        }
    }
}

#[test]
fn ten_thousand_stays_finite_and_right() {
    for (columns, offset) in [(33, 1e4), (33, -1e4), (5000, 1e4), (20_000, -1e4)] {
        let mut case = Case::new(3, columns);
        case.config = SoftmaxConfig::new();
        case.naive_runs = 3;
        case.x.iter_mut().for_each(|x| *x += offset);
        case.check("1e4");
        let alone = Case::new(3, columns);
        let shifted = case.run(false);
        // Shift invariance, up to the ulp of 1e4.
        for (a, b) in alone.run(false)[0].2.iter().zip(&shifted[0].2) {
            assert!((a - b).abs() < 2e-3 * (a + b) + 1e-9, "{a} and {b}");
        }
    }
    // Masks made of the lowest float.
    let mut case = Case::new(2, 40);
    case.x[..40].fill(f32::MIN);
    case.x[40..60].fill(f32::MIN);
    let p = &case.run(false)[0].2;
    assert!(p[..40].iter().all(|p| (p - 0.025).abs() < 1e-6) && p[40..60].iter().all(|p| *p == 0.0), "{p:?}");
    case.dentropy.fill(1e3);
    let dx = &case.run_backward(false)[0].2;
    assert!(dx.iter().all(|dx| dx.is_finite()) && dx[40..60].iter().all(|dx| *dx == 0.0), "{dx:?}");
}

#[test]
fn the_same_bits_on_every_run() {
    for (rows, columns, flags) in [(9, 300, 21), (2, 40_000, 53), (700, 20, 48)] {
        let case = Case::new(rows, columns).options(flags);
        let first: Named = case.run(false).into_iter().chain(case.run_backward(false)).collect();
        for _ in 0..5 {
            for ((name, _, again), (.., first)) in case.run(false).iter().chain(&case.run_backward(false)).zip(&first) {
                assert_same_bits(name, again, first);
            }
        }
    }
}

/// Rows, and a mask, whose outer stride is 0, and dispatches of a few rows each.
#[test]
fn repeated_rows_and_dispatches_in_pieces() {
    let whole = context();
    let options = ContextOptions { max_flops_per_dispatch: 1 << 14, ..whole.capabilities().options };
    let pieces = Context::with_options(whole.device().clone(), whole.queue().clone(), options);
    let columns = 100;
    let x = whole.upload(&Tensor::normal(1, [columns]).data);
    let mask = whole.upload(&(0..columns).map(|j| u8::from(j % 3 > 0)).collect::<Vec<_>>());
    let shape = [50, columns as u32];
    let run = |context: &Context| {
        let p = context.allocate(50 * columns);
        let mut inputs = SoftmaxInputs::new(TensorView::f32(&x, shape).with_strides([0, 1]));
        inputs.mask = Some(TensorView::new(&mask, DType::Bool, shape).with_strides([0, 1]));
        let op = Softmax::new(context, SoftmaxConfig::new().scale(KAPPA)).expect("a config");
        let prepared = op.prepare(inputs, SoftmaxOutputs::new(TensorView::f32(&p, shape))).expect("a softmax");
        context.run(&prepared).expect("it runs");
        (prepared.plan().dispatches(), context.download(&p).expect("p"))
    };
    let ((one, first), (many, second)) = (run(whole), run(&pieces));
    assert!(one == 1 && many >= 4, "{one} and {many} dispatches");
    assert_same_bits("pieces", &first, &second);
    assert_same_bits("rows", &first[..columns], &first[49 * columns..]);
}

#[test]
fn no_rows_are_nothing_to_do_but_a_sum() {
    let context = context();
    let buffers = [(); 4].map(|()| context.upload(&[5.0_f32; 4]));
    let [x, p, scale, slope] = &buffers;
    let none = |buffer| TensorView::f32(buffer, [0, 3]);
    let op = Softmax::new(context, SoftmaxConfig::new()).expect("a config");
    let prepared = op.prepare(SoftmaxInputs::new(none(x)), SoftmaxOutputs::new(none(p))).expect("nothing");
    assert_eq!(prepared.plan().dispatches(), 0);
    let op = SoftmaxBackward::new(context, SoftmaxConfig::new()).expect("a config");
    let dp = context.upload(&[5.0_f32; 4]);
    let mut inputs = SoftmaxBackwardInputs::new(none(x), none(&dp));
    inputs.row_scale = Some(TensorView::f32(scale, [1]));
    let mut gradients = SoftmaxGradients::new(none(p));
    gradients.drow_scale = Some(TensorView::f32(slope, [1]));
    context.run(&op.prepare(inputs, gradients).expect("a sum")).expect("it runs");
    assert_eq!(context.download(slope).expect("a sum")[..2], [0.0, 5.0]);
}

#[test]
fn rows_are_read_at_most_twice_and_written_once() {
    let context = context();
    let op = Softmax::new(context, SoftmaxConfig::new()).expect("a config");
    let back = SoftmaxBackward::new(context, SoftmaxConfig::new()).expect("a config");
    for (rows, columns) in [(1000, 64), (100, 4096), (700, 5000), (2, 1_000_000)] {
        for (dtype, size) in [(DType::F32, 4), (DType::F16, 2), (DType::BF16, 2)] {
            let elements = u64::from(rows) * u64::from(columns);
            let reads = if columns > 4096 { 2 } else { 1 };
            let plan = op.plan(&SoftmaxShapes::new(rows, columns), dtype).expect("a plan");
            assert_eq!(plan.bytes(), (reads + 1) * elements * size, "{rows} x {columns} {dtype:?}");
            let masked = SoftmaxShapes { mask: true, ..SoftmaxShapes::new(rows, columns) };
            let plan = op.plan(&masked, dtype).expect("a plan");
            assert_eq!(plan.bytes(), (reads + 1) * elements * size + reads * elements);
            let plan = back.plan(&SoftmaxBackwardShapes::new(rows, columns), dtype).expect("a plan");
            assert_eq!(plan.bytes(), (2 * reads + 1) * elements * size);
            assert!(plan.workspace_bytes() < 1 << 20, "bounded");
        }
    }
}

#[test]
fn columns_that_hide_others_are_read_at_most_eight_times() {
    let context = context();
    let of = |kind| SoftmaxConfig::new().kind(kind);
    let (kind, dtype, size) = (SoftmaxKind::Sparsemax, DType::F16, 2);
    let sparse = Softmax::new(context, of(kind)).expect("a config");
    let back = SoftmaxBackward::new(context, of(kind)).expect("a config");
    let top = Softmax::new(context, of(SoftmaxKind::TopK { k: 5 })).expect("a config");
    for (rows, columns, bytes_of_column) in [(1000, 64, 1), (100, 4096, 2), (700, 5000, 2), (2, 1_000_000, 3)] {
        let elements = u64::from(rows) * u64::from(columns);
        let (reads, reads_of_threshold) = if columns > 4096 { (2, 8) } else { (1, 1) };
        let plan = sparse.plan(&SoftmaxShapes::new(rows, columns), dtype).expect("a plan");
        assert_eq!(plan.bytes(), (reads_of_threshold + 1) * elements * size);
        // x and dp, and what is written; dp is read for the sums and at the end.
        let plan = back.plan(&SoftmaxBackwardShapes::new(rows, columns), dtype).expect("a plan");
        assert_eq!(plan.bytes(), (reads_of_threshold + reads + 1) * elements * size);
        assert!(plan.workspace_bytes() < 1 << 20, "bounded");
        let plan = top.plan(&SoftmaxShapes::new(rows, columns), dtype).expect("a plan");
        assert_eq!(plan.bytes(), (4 + bytes_of_column + reads + 1) * elements * size);
        assert!(plan.workspace_bytes() < 1 << 21, "bounded");
    }
}

#[test]
fn what_is_wrong_is_refused_by_name() {
    let context = context();
    for (scale, option) in [
        (SoftmaxScale::Temperature(0.0), "scale.temperature"),
        (SoftmaxScale::Temperature(-1.0), "scale.temperature"),
        (SoftmaxScale::Temperature(f32::NAN), "scale.temperature"),
        (SoftmaxScale::Fixed(f32::INFINITY), "scale.fixed"),
        (SoftmaxScale::LogN { base: 1.0, floor: 1 }, "scale.log_n.base"),
        (SoftmaxScale::LogN { base: 2.0, floor: 0 }, "scale.log_n.floor"),
        (SoftmaxScale::KappaLogN { kappa: f32::NAN }, "scale.kappa_log_n.kappa"),
        (SoftmaxScale::LogNInference { train_len: 1 }, "scale.log_n_inference.train_len"),
    ] {
        let config = SoftmaxConfig::new().scale(scale);
        for error in [Softmax::new(context, config).err(), SoftmaxBackward::new(context, config).err()] {
            let error = error.expect("refused").to_string();
            assert!(error.contains(option), "{error}");
        }
    }

    for (kind, log, option) in [
        (SoftmaxKind::Entmax { alpha: 1.0 }, false, "kind.entmax.alpha"),
        (SoftmaxKind::Entmax { alpha: 2.5 }, false, "kind.entmax.alpha"),
        (SoftmaxKind::Entmax { alpha: f32::NAN }, false, "kind.entmax.alpha"),
        (SoftmaxKind::TopK { k: 0 }, false, "kind.top_k.k"),
        (SoftmaxKind::Sparsemax, true, "log"),
        (SoftmaxKind::Entmax { alpha: 1.5 }, true, "log"),
    ] {
        let config = SoftmaxConfig::new().kind(kind).log(log);
        for error in [Softmax::new(context, config).err(), SoftmaxBackward::new(context, config).err()] {
            let error = error.expect("refused").to_string();
            assert!(error.contains(option), "{error}");
        }
    }
    let buffers = [(); 9].map(|()| context.allocate(64));
    let [x, p, mask, scale, lse, entropy, dp, dx, _] = &buffers;
    let float = |buffer, shape: [u32; 2]| TensorView::f32(buffer, shape);
    let op = Softmax::new(context, SoftmaxConfig::new()).expect("a config");
    type Spoil<'a> = &'a dyn Fn(&mut SoftmaxInputs<'a>, &mut SoftmaxOutputs<'a>);
    let bytes = |shape| TensorView::new(mask, DType::Bool, shape);
    let cases: [(&[&str], Spoil<'_>); 11] = [
        (&["p", "rows", "expected 3", "got 2"], &|_, o| o.p = float(p, [2, 5])),
        (&["p", "columns", "expected 5", "got 6"], &|_, o| o.p = float(p, [3, 6])),
        (&["mask", "rows", "expected 3", "got 4"], &|i, _| i.mask = Some(bytes([4, 5]))),
        (&["mask", "columns", "expected 5", "got 4"], &|i, _| i.mask = Some(bytes([3, 4]))),
        (&["mask", "element type"], &|i, _| i.mask = Some(float(mask, [3, 5]))),
        (&["row_scale", "expected 1, or 3", "got 2"], &|i, _| i.row_scale = Some(TensorView::f32(scale, [2]))),
        (&["lse", "rows", "expected 3", "got 5"], &|_, o| o.lse = Some(TensorView::f32(lse, [5]))),
        (&["entropy", "rows", "expected 3"], &|_, o| o.entropy = Some(TensorView::f32(entropy, [2]))),
        (&["entropy", "element type"], &|_, o| o.entropy = Some(TensorView::new(entropy, DType::F16, [3]))),
        (&["x", "columns", "got 0"], &|i, _| i.x = float(x, [3, 0])),
        (&["p", "x"], &|_, o| o.p = float(x, [3, 5])),
    ];
    for (words, spoil) in cases {
        let (mut inputs, mut outputs) = (SoftmaxInputs::new(float(x, [3, 5])), SoftmaxOutputs::new(float(p, [3, 5])));
        spoil(&mut inputs, &mut outputs);
        let error = op.prepare(inputs, outputs).expect_err("refused").to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{words:?}: {error}");
    }

    let entmax = SoftmaxKind::Entmax { alpha: 1.5 };
    let (columns, per_row) = (|buffer| TensorView::new(buffer, DType::U32, [3]), |buffer| TensorView::f32(buffer, [3]));
    let cases: [(SoftmaxKind, &[&str], Spoil<'_>); 10] = [
        (SoftmaxKind::TopK { k: 6 }, &["x", "columns", "6", "got 5"], &|_, _| ()),
        (SoftmaxKind::Sparsemax, &["alpha", "not entmax"], &|i, _| i.alpha = Some(per_row(scale))),
        (entmax, &["alpha", "expected 1, or 3", "got 2"], &|i, _| i.alpha = Some(TensorView::f32(scale, [2]))),
        (entmax, &["lse", "sums no exponentials"], &|_, o| o.lse = Some(per_row(lse))),
        (SoftmaxKind::Softmax, &["support", "above 0"], &|_, o| o.support = Some(columns(lse))),
        (entmax, &["support", "element type"], &|_, o| o.support = Some(per_row(lse))),
        (entmax, &["loss", "labels is not"], &|_, o| o.loss = Some(per_row(lse))),
        (entmax, &["labels", "loss is not"], &|i, _| i.labels = Some(columns(scale))),
        (SoftmaxKind::Taylor, &["labels", "no Fenchel-Young loss"], &|i, o| {
            (i.labels, o.loss) = (Some(columns(scale)), Some(per_row(lse)));
        }),
        (entmax, &["labels", "rows", "got 4"], &|i, o| {
            (i.labels, o.loss) = (Some(TensorView::new(scale, DType::U32, [4])), Some(per_row(lse)));
        }),
    ];
    for (kind, words, spoil) in cases {
        let op = Softmax::new(context, SoftmaxConfig::new().kind(kind)).expect("a config");
        let (mut inputs, mut outputs) = (SoftmaxInputs::new(float(x, [3, 5])), SoftmaxOutputs::new(float(p, [3, 5])));
        spoil(&mut inputs, &mut outputs);
        let error = op.prepare(inputs, outputs).expect_err("refused").to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{words:?}: {error}");
    }

    let op = SoftmaxBackward::new(context, SoftmaxConfig::new()).expect("a config");
    type SpoilBack<'a> = &'a dyn Fn(&mut SoftmaxBackwardInputs<'a>, &mut SoftmaxGradients<'a>);
    let cases: [(&[&str], SpoilBack<'_>); 7] = [
        (&["dp", "missing", "no gradient comes in"], &|i, _| i.dp = None),
        (&["dx", "missing", "no gradient is asked for"], &|_, g| g.dx = None),
        (&["drow_scale", "row_scale is not"], &|_, g| g.drow_scale = Some(TensorView::f32(scale, [1]))),
        (&["dp", "columns", "expected 5", "got 4"], &|i, _| i.dp = Some(float(dp, [3, 4]))),
        (&["dlse", "rows", "expected 3"], &|i, _| i.dlse = Some(TensorView::f32(lse, [1]))),
        (&["dentropy", "rows", "expected 3"], &|i, _| i.dentropy = Some(TensorView::f32(entropy, [4]))),
        (&["dx", "rows", "expected 3", "got 1"], &|_, g| g.dx = Some(float(dx, [1, 5]))),
    ];
    for (words, spoil) in cases {
        let mut inputs = SoftmaxBackwardInputs::new(float(x, [3, 5]), float(dp, [3, 5]));
        let mut gradients = SoftmaxGradients::new(float(dx, [3, 5]));
        spoil(&mut inputs, &mut gradients);
        let error = op.prepare(inputs, gradients).expect_err("refused").to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{words:?}: {error}");
    }

    let cases: [(SoftmaxKind, &[&str], SpoilBack<'_>); 5] = [
        (SoftmaxKind::Sparsemax, &["dlse", "no lse"], &|i, _| i.dlse = Some(per_row(lse))),
        (entmax, &["dalpha", "alpha is not"], &|_, g| g.dalpha = Some(per_row(lse))),
        (entmax, &["dloss", "labels is not"], &|i, _| i.dloss = Some(per_row(lse))),
        (entmax, &["labels", "dloss is not"], &|i, _| i.labels = Some(columns(scale))),
        (SoftmaxKind::Taylor, &["labels", "no Fenchel-Young loss"], &|i, _| {
            (i.labels, i.dloss) = (Some(columns(scale)), Some(per_row(lse)));
        }),
    ];
    for (kind, words, spoil) in cases {
        let op = SoftmaxBackward::new(context, SoftmaxConfig::new().kind(kind)).expect("a config");
        let mut inputs = SoftmaxBackwardInputs::new(float(x, [3, 5]), float(dp, [3, 5]));
        let mut gradients = SoftmaxGradients::new(float(dx, [3, 5]));
        spoil(&mut inputs, &mut gradients);
        let error = op.prepare(inputs, gradients).expect_err("refused").to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{words:?}: {error}");
    }
}

proptest! {
    #![proptest_config(common::any(24))]
    #[test]
    fn any_rows_agree_with_the_twins(rows in 1usize..40, columns in 1usize..300, flags in 0usize..4) {
        // Few kernels: options in four sets.
        Case::new(rows, columns).options([0, 21, 52, 31][flags]).check("any");
    }
}
