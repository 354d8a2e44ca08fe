//! Devices that are lost, and several at once. No test sets a handler of errors: wgpu's own panics.

mod common;

use common::{Tensor, device_with};
use wgpu_attention::{
    Attention, AttentionConfig, AttentionInputs, AttentionOutputs, AttentionShapes, AutotuneOptions, Context, DType,
    Error, GatedAttention, GatedAttentionConfig, GatedAttentionInputs, GatedAttentionOutputs, LinearAttention,
    LinearAttentionConfig, LinearAttentionInputs, LinearAttentionOutputs, MatMul, MatMulConfig, MatMulInputs,
    MatMulOutputs, Merge, MergeConfig, MergeInputs, MergeOutputs, Result, TensorView, Timer,
};

const SHAPE: [u32; 4] = [1, 2, 9, 8];
const ELEMENTS: usize = 2 * 9 * 9;

#[track_caller]
fn assert_lost<T>(what: &str, result: Result<T>) {
    match result {
        Err(Error::DeviceLost) => {}
        Err(error) => panic!("{what}: {error:?}"),
        Ok(_) => panic!("{what}: Ok"),
    }
}

fn encoder(context: &Context) -> wgpu::CommandEncoder {
    context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default())
}

/// Contexts of devices of their own, with timestamps and without.
fn contexts() -> [Context; 2] {
    [Context::headless().expect("an adapter"), device_with(wgpu::Limits::default()).expect("a device")]
}

/// A call of each op on these buffers, with this many rows.
fn record_each(
    context: &Context,
    rows: u32,
    [input, output]: [&wgpu::Buffer; 2],
    encoder: &mut wgpu::CommandEncoder,
) -> Result<Vec<(&'static str, Result<()>)>> {
    let x = TensorView::f32(input, [1, 2, rows, 8]);
    let square = TensorView::f32(input, [1, 2, rows, rows]);
    let o = TensorView::f32(output, [1, 2, rows, 8]);
    let attention = Attention::new(context, AttentionConfig::new())?;
    let gated = GatedAttention::new(context, GatedAttentionConfig::new())?;
    let linear = LinearAttention::new(context, LinearAttentionConfig::new())?;
    let (matmul, merge) = (MatMul::new(context, MatMulConfig::new())?, Merge::new(context, MergeConfig::new())?);
    let parts = TensorView::f32(input, [1, 1, 2, rows, 8]);
    let lse = TensorView::f32(input, [1, 1, 2, rows]);
    let merged = TensorView::f32(output, [1, 2, rows]).with_offset(2 * 8 * u64::from(rows));
    Ok(vec![
        ("attention", attention.record(encoder, AttentionInputs::new(x, x, x), AttentionOutputs::new(o))),
        ("gated_attention", gated.record(encoder, GatedAttentionInputs::new(x, x, x), GatedAttentionOutputs::new(o))),
        (
            "linear_attention",
            linear.record(encoder, LinearAttentionInputs::new(x, x, x), LinearAttentionOutputs::new(o)),
        ),
        ("matmul", matmul.record(encoder, MatMulInputs::new(square, x), MatMulOutputs { c: o })),
        ("merge", merge.record(encoder, MergeInputs::new(parts, lse), MergeOutputs::new(o, merged))),
    ])
}

#[test]
fn every_call_says_that_the_device_is_lost() -> Result<()> {
    for context in contexts() {
        let input = context.upload(&Tensor::normal(1, [ELEMENTS]).data);
        let output = context.allocate(ELEMENTS);
        let attention = Attention::new(&context, AttentionConfig::new())?;
        let matmul = MatMul::new(&context, MatMulConfig::new())?;
        let x = TensorView::f32(&input, SHAPE);
        let (inputs, outputs) = (AttentionInputs::new(x, x, x), AttentionOutputs::new(TensorView::f32(&output, SHAPE)));
        let prepared = attention.prepare(inputs, outputs)?;
        let workspace = prepared.workspace()?;
        context.run(&prepared)?;
        let timer = Timer::new(&context);
        timer.pass(|pass| prepared.record_in(pass))?;
        let mut before = encoder(&context);
        let mut recorded = encoder(&context);
        for (op, result) in record_each(&context, 7, [&input, &output], &mut recorded)? {
            result.unwrap_or_else(|error| panic!("{op}: {error}"));
        }

        context.device().destroy();
        // New shapes and known ones, in an encoder from before the loss and in one from after it.
        let mut after = encoder(&context);
        for encoder in [&mut before, &mut after] {
            for rows in [7, 8] {
                for (op, result) in record_each(&context, rows, [&input, &output], encoder)? {
                    assert_lost(op, result);
                }
            }
            assert_lost("record, of a known shape", attention.record(encoder, inputs, outputs));
            prepared.record(encoder);
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            assert_lost("record_in", attention.record_in(&mut pass, inputs, outputs));
            assert_lost("record_piece", prepared.record_piece(&mut pass, 0, &workspace));
        }
        context.queue().submit([before.finish(), after.finish(), recorded.finish()]);
        assert_lost("plan", attention.plan(&AttentionShapes::new(1, 2, 11, 8), DType::F32));
        assert_lost("plan, of a known shape", attention.plan(&AttentionShapes::new(1, 2, 9, 8), DType::F32));
        assert_lost("prepare", attention.prepare(inputs, outputs));
        assert_lost("run", context.run(&prepared));
        assert_lost("pass", timer.pass(|pass| prepared.record_in(pass)));
        assert_lost("pass of a new timer", Timer::new(&context).pass(|_| ()));
        assert_lost("download", context.download(&output));
        assert_lost("download_as", context.download_as(&output, DType::F16));
        let case = (AttentionConfig::new(), AttentionShapes::new(1, 2, 9, 8)).into();
        assert_lost("autotune", context.autotune(&[case], &AutotuneOptions::default(), |_| ()));

        // What is made now is of no use, and says so where it is used.
        let uploaded = context.upload(&[0.5_f32; ELEMENTS]);
        let halves = context.upload_as(&[0.5_f32; ELEMENTS], DType::F16)?;
        let allocated = context.allocate(ELEMENTS);
        let x = TensorView::f32(&uploaded, [1, 2, 3, 8]);
        let inputs = MatMulInputs::new(TensorView::f32(&uploaded, [1, 2, 3, 3]), x);
        let c = MatMulOutputs { c: TensorView::f32(&allocated, [1, 2, 3, 8]) };
        assert_lost("matmul", matmul.prepare(inputs, c));
        for buffer in [&uploaded, &halves, &allocated] {
            assert_lost("download of a buffer made after the loss", context.download(buffer));
        }
    }
    Ok(())
}

#[test]
fn a_device_lost_while_it_is_tuned_ends_the_tuning() -> Result<()> {
    let context = Context::headless()?;
    let case = (MatMulConfig::new(), wgpu_attention::MatMulShapes::new(40, 30, 20)).into();
    let lose = |_: &wgpu_attention::AutotuneProgress<'_>| context.device().destroy();
    assert_lost("autotune", context.autotune(&[case], &AutotuneOptions::default(), lose));
    Ok(())
}

#[test]
fn a_destroyed_buffer_is_an_error_of_every_blocking_call() -> Result<()> {
    for context in contexts() {
        let [a, b, c] = [1, 2, 3].map(|seed| context.upload(&Tensor::normal(seed, [64]).data));
        let matrix = |buffer| TensorView::f32(buffer, [1, 1, 8, 8]);
        let matmul = MatMul::new(&context, MatMulConfig::new())?;
        let prepared = matmul.prepare(MatMulInputs::new(matrix(&a), matrix(&b)), MatMulOutputs { c: matrix(&c) })?;
        let timer = Timer::new(&context);
        b.destroy();
        for (what, result) in [
            ("download", context.download(&b).map(drop)),
            ("run", context.run(&prepared)),
            ("pass", timer.pass(|pass| prepared.record_in(pass)).map(drop)),
        ] {
            let error = result.expect_err(what);
            assert!(matches!(error, Error::Readback(_)), "{what}: {error:?}");
            assert!(error.to_string().contains("destroyed"), "{what}: {error}");
        }
        // Nothing of it stays behind.
        timer.pass(|_| ()).or_else(|error| if timer.name() == "wall" { Err(error) } else { Ok(Default::default()) })?;
        assert_eq!(context.download(&a)?, Tensor::normal(1, [64]).data);
    }
    Ok(())
}

#[test]
fn an_empty_buffer_reads_back_as_nothing() -> Result<()> {
    for context in contexts() {
        assert_eq!(context.download(&context.allocate(usize::MAX))?, [0.0; 0]);
    }
    Ok(())
}

#[test]
fn threads_share_a_timer() -> Result<()> {
    for context in contexts() {
        let [a, b, c] = [1, 2, 3].map(|seed| context.upload(&Tensor::normal(seed, [64 * 64]).data));
        let matrix = |buffer| TensorView::f32(buffer, [1, 1, 64, 64]);
        let matmul = MatMul::new(&context, MatMulConfig::new())?;
        let prepared = matmul.prepare(MatMulInputs::new(matrix(&a), matrix(&b)), MatMulOutputs { c: matrix(&c) })?;
        let timer = Timer::new(&context);
        let time = || (0..20).map(|_| timer.pass(|pass| prepared.record_in(pass))).collect::<Result<Vec<_>>>();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(time)).collect();
            for thread in threads {
                let took = thread.join().expect("no panic")?;
                assert!(took.iter().all(|took| !took.is_zero()), "{took:?}");
            }
            Ok::<_, Error>(())
        })?;
    }
    Ok(())
}

#[test]
fn a_buffer_of_another_context_is_not_taken_for_ones_own() -> Result<()> {
    // Made in turns, the buffers of two instances of wgpu would go by the same numbers.
    let contexts = [Context::headless()?, Context::headless()?];
    let buffers = contexts.each_ref().map(|context| [0.0, 1.0, 2.0, 3.0].map(|x: f32| context.upload(&[x; 16])));
    let [own, other] = [&contexts[0], &contexts[1]];
    let [a, b, c, _] = buffers[1].each_ref().map(|buffer| TensorView::f32(buffer, [1, 1, 4, 4]));
    let matmul = MatMul::new(own, MatMulConfig::new())?;

    let scope = own.device().push_error_scope(wgpu::ErrorFilter::Validation);
    let mut encoder = encoder(own);
    matmul.record(&mut encoder, MatMulInputs::new(a, b), MatMulOutputs { c })?;
    own.queue().submit([encoder.finish()]);
    let error = pollster::block_on(scope.pop()).expect("wgpu says so").to_string();
    assert!(error.contains("match Device"), "{error}");

    let prepared = matmul.prepare(MatMulInputs::new(a, b), MatMulOutputs { c })?;
    let timer = Timer::new(own);
    for (what, result) in [
        ("run", own.run(&prepared)),
        ("pass", timer.pass(|pass| prepared.record_in(pass)).map(drop)),
        ("download", own.download(&buffers[1][0]).map(drop)),
    ] {
        let error = result.expect_err(what);
        assert!(matches!(error, Error::Readback(_)), "{what}: {error:?}");
    }
    for (context, buffers) in [own, other].into_iter().zip(&buffers) {
        for (x, buffer) in [0.0, 1.0, 2.0, 3.0].iter().zip(buffers) {
            assert_eq!(context.download(buffer)?, [*x; 16]);
        }
    }
    Ok(())
}

#[test]
fn threads_have_headless_contexts_of_their_own() -> Result<()> {
    let multiply = |seed: u64| -> Result<()> {
        for _ in 0..2 {
            let context = Context::headless()?;
            let [a, b] = [Tensor::normal(seed, [64]).data, Tensor::filled(0.0, [64]).data];
            let [a, b, c] = [&a, &b, &a].map(|data| context.upload(data));
            let [a, b, product] = [&a, &b, &c].map(|buffer| TensorView::f32(buffer, [1, 1, 8, 8]));
            let matmul = MatMul::new(&context, MatMulConfig::new())?;
            context.run(&matmul.prepare(MatMulInputs::new(a, b), MatMulOutputs { c: product })?)?;
            assert_eq!(context.download(&c)?, [0.0; 64]);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|seed| scope.spawn(move || multiply(seed))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })
}
