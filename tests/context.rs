//! What a context is made with changes no result.

#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

mod common;

use common::{Tensor, assert_same_bits, context, headless, without_bounds_checks};
use wgpu_attention::{
    Attention, AttentionConfig, AttentionInputs, AttentionOutputs, Causal, Context, FeatureMap, GatedAttention,
    GatedAttentionConfig, GatedAttentionInputs, GatedAttentionOutputs, LinearAttention, LinearAttentionConfig,
    LinearAttentionInputs, LinearAttentionOutputs, LinearMode, Result, TensorView,
};

const SHAPE: [usize; 4] = [1, 2, 77, 20];

/// The output of every op on the same random tensors.
fn every_op(context: &Context) -> Result<Vec<(&'static str, Vec<f32>)>> {
    let [q, k, v] = [1, 2, 3].map(|seed| context.upload(&Tensor::normal(seed, SHAPE).data));
    let shape = SHAPE.map(|extent| extent as u32);
    let [q, k, v] = [&q, &k, &v].map(|buffer| TensorView::f32(buffer, shape));
    let mut found = Vec::new();
    let mut run = |name, record: &dyn Fn(&mut wgpu::CommandEncoder, TensorView<'_, 4>) -> Result<()>| -> Result<()> {
        let o = context.upload(&vec![f32::NAN; SHAPE.iter().product()]);
        let mut encoder = context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        record(&mut encoder, TensorView::f32(&o, shape))?;
        context.queue().submit([encoder.finish()]);
        found.push((name, context.download(&o)?));
        Ok(())
    };
    let attention = Attention::new(context, AttentionConfig::new().causal(Causal::BottomRight))?;
    run("attention", &|encoder, o| attention.record(encoder, AttentionInputs::new(q, k, v), AttentionOutputs::new(o)))?;
    let gated = GatedAttention::new(context, GatedAttentionConfig::new().causal(Causal::TopLeft))?;
    run("gated_attention", &|encoder, o| {
        gated.record(encoder, GatedAttentionInputs::new(q, k, v), GatedAttentionOutputs::new(o))
    })?;
    let config = LinearAttentionConfig::new().mode(LinearMode::Causal).feature_map(FeatureMap::Exp);
    let linear = LinearAttention::new(context, config)?;
    run("linear_attention", &|encoder, o| {
        linear.record(encoder, LinearAttentionInputs::new(q, k, v), LinearAttentionOutputs::new(o))
    })?;
    Ok(found)
}

#[test]
fn bounds_checks_change_no_bit() -> Result<()> {
    let checked = every_op(context())?;
    let unchecked = every_op(&without_bounds_checks(context()))?;
    for ((name, checked), (_, unchecked)) in checked.iter().zip(&unchecked) {
        assert!(checked.iter().all(|x| x.is_finite()), "{name}");
        assert_same_bits(name, checked, unchecked);
    }
    Ok(())
}

#[test]
fn a_pipeline_cache_goes_from_one_device_to_the_next() -> Result<()> {
    use wgpu::Features;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default())).unwrap();
    if !adapter.features().contains(Features::PIPELINE_CACHE) {
        eprintln!("skipped: the adapter has no pipeline cache");
        return Ok(());
    }
    let context = |features, data: Option<&[u8]>| {
        let required_limits = adapter.limits();
        let descriptor = wgpu::DeviceDescriptor { required_features: features, required_limits, ..Default::default() };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).unwrap();
        // Data that wgpu would not take is an error.
        let descriptor = wgpu::PipelineCacheDescriptor { label: None, data, fallback: data.is_none() };
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        // SAFETY: the data comes from another device of the same adapter, or there is none.
        #[allow(unsafe_code, reason = "wgpu has no other way")]
        let cache = unsafe { device.create_pipeline_cache(&descriptor) };
        let refused = pollster::block_on(scope.pop());
        assert!(refused.is_none(), "{refused:?}");
        (Context::new(device, queue).with_pipeline_cache(cache.clone()), cache)
    };

    let (first, cache) = context(Features::PIPELINE_CACHE, None);
    let fresh = every_op(&first)?;
    // Software drivers keep pipelines elsewhere: it may be a header and no more.
    let data = cache.get_data().filter(|data| !data.is_empty()).expect("data");
    let (second, _) = context(Features::PIPELINE_CACHE, Some(&data));
    for ((name, fresh), (_, cached)) in fresh.iter().zip(&every_op(&second)?) {
        assert_same_bits(name, fresh, cached);
    }
    Ok(())
}

/// What wgpu holds on the device: buffers, their bytes, pipelines, modules.
fn held(context: &Context) -> [isize; 4] {
    let hal = context.device().get_internal_counters().hal;
    [hal.buffers.read(), hal.buffer_memory.read(), hal.compute_pipelines.read(), hal.shader_modules.read()]
}

#[test]
fn a_repeated_call_creates_nothing_on_the_device() -> Result<()> {
    let context = &headless();
    let [q, k, v, o] = [1, 2, 3, 4].map(|seed| context.upload(&Tensor::normal(seed, SHAPE).data));
    let [q, k, v, o] = [&q, &k, &v, &o].map(|buffer| TensorView::f32(buffer, SHAPE.map(|extent| extent as u32)));
    let attention = Attention::new(context, AttentionConfig::new())?;
    let gated = GatedAttention::new(context, GatedAttentionConfig::new())?;
    let linear = LinearAttention::new(context, LinearAttentionConfig::new())?;
    let record = |encoder: &mut wgpu::CommandEncoder| -> Result<()> {
        attention.record(encoder, AttentionInputs::new(q, k, v), AttentionOutputs::new(o))?;
        gated.record(encoder, GatedAttentionInputs::new(q, k, v), GatedAttentionOutputs::new(o))?;
        linear.record(encoder, LinearAttentionInputs::new(q, k, v), LinearAttentionOutputs::new(o))
    };
    let mut encoder = context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    record(&mut encoder)?;
    let before = held(context);
    assert!(before[0] > 0, "wgpu counts (its feature `counters`): {before:?}");
    for _ in 0..50 {
        record(&mut encoder)?;
    }
    assert_eq!(held(context), before, "buffers, their bytes, pipelines, shader modules");
    Ok(())
}
