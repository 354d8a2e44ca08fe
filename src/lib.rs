//! Attention and the softmax family as WGSL compute kernels, recorded into your own wgpu encoder.

pub mod attention;
#[cfg(feature = "blocking")]
mod blocking;
mod context;
mod dispatch;
mod error;
pub mod gated_attention;
mod host;
pub mod linear_attention;
mod params;
mod quirks;
pub mod reference;
mod tensor;
mod wgsl;

pub use attention::{
    Attention, AttentionConfig, AttentionInputs, AttentionOutputs, AttentionShapes, Causal, Scale, Window,
};
#[cfg(feature = "blocking")]
pub use blocking::Uploaded;
pub use context::{Context, ContextOptions};
pub use dispatch::{Plan, Prepared, Workspace};
pub use error::{Error, Result};
pub use gated_attention::{
    Divisor, GatedAttention, GatedAttentionConfig, GatedAttentionInputs, GatedAttentionOutputs, GatedAttentionShapes,
    GauMode, GauWeights, LinearDivisor, QuadraticDivisor,
};
pub use host::HostView;
pub use linear_attention::{
    FeatureMap, LinearAttention, LinearAttentionConfig, LinearAttentionInputs, LinearAttentionOutputs,
    LinearAttentionShapes, LinearMode, Normalization,
};
pub use tensor::{DType, Element, TensorView};
pub use wgpu;

/// What the crate's own tests look at and no user needs.
#[doc(hidden)]
pub mod introspect {
    pub use crate::context::Capabilities;
    pub use crate::params::ParamsLayout;
    pub use crate::wgsl::{Constant, Source, Specialization};
}
