//! The gradients of a product, which are products of views.

use super::*;

/// a [batch, heads, m, k], b [1, 1, k, n] for all, a bias per column: against sums in f64.
#[test]
fn gradients_are_products_of_views() {
    let [batch, heads, m, k, n] = [2, 3, 5, 4, 6];
    let (a, b, dc) = (
        Tensor::normal(1, [batch, heads, m, k]),
        Tensor::normal(2, [1, 1, k, n]),
        Tensor::normal(3, [batch, heads, m, n]),
    );
    let context = context();
    let [on_a, on_b, on_dc] = [&a.data, &b.data, &dc.data].map(|data| context.upload(data));
    let on_bias = context.upload(&vec![0.5_f32; n]);
    let ones = context.upload(&vec![1.0_f32; batch * heads * m]);
    let extents = |shape: [usize; 4]| shape.map(|extent| extent as u32);
    let mut inputs = MatMulInputs::new(
        TensorView::f32(&on_a, extents(a.shape)),
        TensorView::f32(&on_b, extents(b.shape)).broadcast_to(extents([batch, heads, k, n])),
    );
    inputs.bias = Some(TensorView::f32(&on_bias, extents([1, 1, 1, n])).broadcast_to(extents(dc.shape)));
    let view = TensorView::f32(&on_dc, extents(dc.shape));
    let product = MatMul::new(context, MatMulConfig::new()).expect("a config");
    let run = |inputs: MatMulInputs<'_>, shape: [usize; 4]| {
        let out = context.allocate(shape.iter().product());
        let outputs = MatMulOutputs::new(TensorView::f32(&out, extents(shape)));
        context.run(&product.prepare(inputs, outputs).expect("views that fit")).expect("a run");
        context.download(&out).expect("numbers")
    };
    let ones = TensorView::f32(&ones, [(batch * heads * m) as u32]);
    let da = run(inputs.gradient_of_a(view).expect("a product"), a.shape);
    let db = run(inputs.gradient_of_b(view).expect("a product"), b.shape);
    let dbias = run(inputs.gradient_of_bias(view, ones).expect("a product"), [1, 1, 1, n]);

    let at = |tensor: &Tensor<4>, index: [usize; 4]| f64::from(tensor.view().get(index).expect("an element"));
    let close = |got: f32, want: f64| assert!((f64::from(got) - want).abs() < 1e-5, "got {got}, want {want}");
    let matrices = || (0..batch).flat_map(|x| (0..heads).map(move |h| (x, h)));
    for (x, h) in matrices() {
        for (i, c) in (0..m).flat_map(|i| (0..k).map(move |c| (i, c))) {
            let want = (0..n).map(|j| at(&dc, [x, h, i, j]) * at(&b, [0, 0, c, j])).sum();
            close(da[((x * heads + h) * m + i) * k + c], want);
        }
    }
    let rows = || matrices().flat_map(|(x, h)| (0..m).map(move |i| (x, h, i)));
    for j in 0..n {
        close(dbias[j], rows().map(|(x, h, i)| at(&dc, [x, h, i, j])).sum());
        for c in 0..k {
            close(db[c * n + j], rows().map(|(x, h, i)| at(&a, [x, h, i, c]) * at(&dc, [x, h, i, j])).sum());
        }
    }

    // What no product sums over is refused by its axis.
    let repeated = MatMulInputs { a: inputs.b, b: inputs.a.swap_axes(2, 3), ..inputs };
    let refused = repeated.gradient_of_a(view).expect_err("heads repeat").to_string();
    assert!(refused.contains("a: stride of axis heads"), "{refused}");
    let [few, one] = [ones.with_extent(0, 29), ones.with_extent(0, 1).broadcast_to([30])];
    for (ones, reason) in [(few, "ones: axis rows"), (one, "ones: stride of axis rows")] {
        let refused = inputs.gradient_of_bias(view, ones).expect_err("too few ones").to_string();
        assert!(refused.contains(reason), "{refused}");
    }
}

/// The gradient of what is activated, behind every kernel, in every place and type.
#[test]
fn slopes_of_every_activation() {
    for activation in ACTIVATIONS {
        let case = Case::batched(activation, [2, 2, 34, 36], 20, [[2, 2], [2, 2]], [false, true]);
        case.clone().with_dc([2, 2, 34, 36]).check("dc");
        case.clone().with_dc([2, 1, 1, 36]).check("dc that repeats");
        case.with_dc([2, 2, 34, 36]).with_bias([1, 2, 1, 36]).check_at("dc, bias", Placement::Odd);
        let mut large = Case::batched(activation, [2, 2, 34, 36], 3, [[2, 2], [2, 2]], [false, true]);
        large.a = large.a.scaled(1e15);
        large.with_dc([2, 2, 34, 36]).check("large");
        // In ranges of k.
        let long = Case::batched(activation, [2, 1, 3, 32], 777, [[2, 1], [2, 1]], [false, true]);
        long.with_dc([2, 1, 3, 32]).with_bias([1, 1, 1, 32]).check("ranges, dc");
    }
    for stored in [DType::F16, DType::BF16] {
        let case = Case::new(Activation::Silu, [9, 22, 5]).with_dc([1, 1, 9, 22]);
        case.stored([DType::F32, DType::F32, stored, stored]).check("dc in sixteen bits");
    }
}

/// The twin's, against the differences of its own activations.
#[test]
fn slopes_are_differences() {
    for activation in ACTIVATIONS {
        let config = MatMulConfig::new().activation(activation);
        let (x, one) = (Tensor::normal(9, [1, 1, 40, 1]).scaled(3.0), Tensor::filled(1.0, [1, 1, 1, 1]));
        let dc = Tensor::normal(10, x.shape);
        let at = |by: f32| {
            let moved = Tensor { data: x.data.iter().map(|x| x + by).collect(), ..x.clone() };
            let c = matmul(&config, &HostInputs::new(moved.view(), one.view())).expect("a product").c;
            (moved, c)
        };
        // A power of two, so that most sums are exact; what they come to is told all the same.
        let step = 1.0 / 1024.0;
        let [(less, below), (more, above)] = [at(-step), at(step)];
        let inputs = HostInputs { dc: Some(dc.view()), ..HostInputs::new(x.view(), one.view()) };
        let slopes = matmul(&config, &inputs).expect("a product").c;
        for (i, slope) in slopes.iter().enumerate() {
            let [less, more, dc] = [less.data[i], more.data[i], dc.data[i]].map(f64::from);
            let want = dc * (above[i] - below[i]) / (more - less);
            assert!((slope - want).abs() < 1e-5, "{activation:?} at {}: got {slope}, want {want}", x.data[i]);
        }
    }
}

#[test]
fn nan_comes_out_of_every_slope() {
    for activation in ACTIVATIONS {
        let mut case = Case::new(activation, [9, 20, 12]).with_dc([1, 1, 9, 20]);
        *case.a.at_mut([0, 0, 4, 5]) = f32::NAN;
        for (kernels, context) in contexts() {
            for (i, c) in case.run(context, Placement::Aligned).chunks(20).enumerate() {
                assert!(c.iter().all(|x| x.is_nan() == (i == 4)), "{activation:?}{kernels}, row {i}: {c:?}");
            }
        }
    }
}
