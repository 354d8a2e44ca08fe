//! What a context is made with changes no result.

mod common;

use common::{Tensor, assert_same_bits, context, without_bounds_checks};
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
