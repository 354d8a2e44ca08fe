//! What is drawn: the words of Philox, how often classes come, and how seldom the largest of many tie.

use wgpu_attention::gumbel_softmax::{key, reference};
use wgpu_attention::{
    DType, GumbelKind, GumbelSoftmax, GumbelSoftmaxConfig, GumbelSoftmaxInputs, GumbelSoftmaxOutputs, TensorView, wgpu,
};

use super::common::{Tensor, compiles_slowly, context};

/// The words of the crate's own WGSL for counters (i, 0xffffffff - i, i * i, 3) and seed (i, 7).
#[test]
fn philox_gives_the_same_words_as_the_twin() {
    let text = [
        include_str!("../../shaders/gumbel_softmax/philox.wgsl"),
        "@group(0) @binding(0) var<storage, read_write> words: array<vec4<u32>>;
        @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) at: vec3<u32>) {
            let i = at.x * 2654435761u;
            words[2u * at.x] = philox(vec4(i, ~i, i * i, 3u), vec2(i, 7u));
            words[2u * at.x + 1u] = select(philox(vec4(0u), vec2(0u)), philox(vec4(~0u), vec2(~0u)), at.x % 2u == 1u);
        }",
    ];
    let device = context().device();
    let source = wgpu::ShaderSource::Wgsl(text.concat().into());
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    });
    let count = 1024_usize;
    let buffer = context().upload(&vec![0_u32; 8 * count]);
    let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[wgpu::BindGroupEntry { binding: 0, resource: buffer.as_entire_binding() }],
    });
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &bind_group, &[]);
        pass.dispatch_workgroups(count as u32 / 64, 1, 1);
    }
    context().queue().submit([encoder.finish()]);
    let words = context().download_u32(&buffer).expect("words");
    for (at, words) in words.chunks(8).enumerate() {
        let i = (at as u32).wrapping_mul(2_654_435_761);
        assert_eq!(words[..4], reference::philox([i, !i, i.wrapping_mul(i), 3], [i, 7]), "{at}");
        // The known answers of Random123.
        let known = [
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd_u32],
        ];
        assert_eq!(words[4..], known[at % 2], "{at}");
    }
}

/// The classes of so many draws from one row of logits, which all rows share.
fn draws(logits: &[f32], rows: usize) -> Vec<u32> {
    let context = context();
    let shape = [rows as u32, logits.len() as u32];
    let (logits, key) = (context.upload(logits), context.upload(&key(2026, 0, 0, 0)));
    let index = context.upload(&vec![0_u32; rows]);
    let inputs = GumbelSoftmaxInputs::new(
        TensorView::f32(&logits, shape).with_strides([0, 1]),
        TensorView::new(&key, DType::U32, [5]),
    );
    let op = GumbelSoftmax::new(context, GumbelSoftmaxConfig::new().kind(GumbelKind::Sample)).expect("a config");
    let outputs = GumbelSoftmaxOutputs::of_index(TensorView::new(&index, DType::U32, [rows as u32]));
    context.run(&op.prepare(inputs, outputs).expect("a draw")).expect("it runs");
    context.download_u32(&index).expect("classes")
}

#[test]
fn classes_come_as_often_as_their_logits_say() {
    // Drivers that compile slowly run slowly as well.
    let count = if compiles_slowly() { 100_000 } else { 1_000_000 };
    let logits = Tensor::normal(5, [64]).data;
    let weights: Vec<f64> = logits.iter().map(|x| f64::from(*x).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let mut found = [0.0; 64];
    draws(&logits, count).into_iter().for_each(|class| found[class as usize] += 1.0);
    let expected = weights.iter().map(|weight| weight / sum * count as f64);
    let chi_square: f64 = found.iter().zip(expected).map(|(found, want)| (found - want).powi(2) / want).sum();
    // Of 63 degrees of freedom, beyond 114 in one of 10^4 cases, and below 29 likewise.
    assert!((29.0..114.0).contains(&chi_square), "{chi_square}");
}

/// Of 10^6 equal columns the two largest tie in about 0.012 % of rows. THOROUGH takes 2000 rows, of which 0.2 tie, where uniforms of
/// 23 bits would have 117; else 64, of which those would have 4.
#[test]
fn the_largest_of_a_million_seldom_tie() {
    let (rows, most) = if std::env::var_os("THOROUGH").is_some() { (2000, 5) } else { (64, 1) };
    let (context, columns, batch) = (context(), 1_000_000_u32, 16_u32);
    if compiles_slowly() {
        return;
    }
    let logits = context.upload(&vec![0.0_f32; columns as usize]);
    let noise = context.allocate((columns * batch) as usize);
    let index = context.upload(&vec![0_u32; batch as usize]);
    let op = GumbelSoftmax::new(context, GumbelSoftmaxConfig::new().kind(GumbelKind::Sample)).expect("a config");
    let mut ties = 0;
    for first in (0..rows).step_by(batch as usize) {
        let key = context.upload(&key(2027, 0, 0, first));
        let inputs = GumbelSoftmaxInputs::new(
            TensorView::f32(&logits, [batch, columns]).with_strides([0, 1]),
            TensorView::new(&key, DType::U32, [5]),
        );
        let outputs = GumbelSoftmaxOutputs {
            noise: Some(TensorView::f32(&noise, [batch, columns])),
            ..GumbelSoftmaxOutputs::of_index(TensorView::new(&index, DType::U32, [batch]))
        };
        context.run(&op.prepare(inputs, outputs).expect("a draw")).expect("it runs");
        let drawn = context.download_u32(&index).expect("classes");
        for (row, class) in context.download(&noise).expect("noise").chunks(columns as usize).zip(drawn) {
            let largest = row.iter().copied().fold(f32::MIN, f32::max);
            assert_eq!(row[class as usize], largest);
            ties += u32::from(row.iter().filter(|g| **g == largest).count() > 1);
        }
    }
    assert!(ties <= most, "{ties} of {rows} rows tie");
}
