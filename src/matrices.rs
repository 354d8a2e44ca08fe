//! The tier above the portable one: matrices that a subgroup multiplies together, factors in f16, sums in f32.

use std::fmt;

use crate::context::Capabilities;
use crate::wgsl::{Source, source};
use crate::{Error, Result};

/// Whether an op's products may run on a device's cooperative matrices (tensor cores, simdgroup matrices).
///
/// They are faster and less exact, so that they are never taken unasked; a plan that asks for them on a device without them is
/// refused with [`Error::Unsupported`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Matrices {
    /// No: products are f32.
    #[default]
    None,
    /// Yes: the factors of every product are rounded to f16, sums stay f32. A factor past ±65504, the largest number of f16,
    /// counts as ±65504 (an infinity too), and one below 2⁻²⁵ as 0; no sum of finite numbers becomes infinite or NaN.
    F16,
}

/// The sizes of cooperative matrices that an adapter multiplies and WGSL can express, for
/// [`ContextOptions`](crate::ContextOptions): the list is the adapter's, and a device does not tell it.
///
/// ```no_run
/// # fn embed(adapter: &wgpu::Adapter, device: wgpu::Device, queue: wgpu::Queue) {
/// use wgpu_attention::{Context, ContextOptions, MatrixSizes};
///
/// // The device was created with the features SUBGROUP, SHADER_F16 and EXPERIMENTAL_COOPERATIVE_MATRIX.
/// let matrix_sizes = MatrixSizes::new(&adapter.cooperative_matrix_properties());
/// let context = Context::with_options(device, queue, ContextOptions { matrix_sizes, ..Default::default() });
/// # let _ = context;
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MatrixSizes {
    eight: bool,
    sixteen: bool,
}

impl MatrixSizes {
    /// Those of a list of [`wgpu::Adapter::cooperative_matrix_properties`] that are square, 8 or 16 wide, with factors in f16
    /// and sums in f32.
    #[must_use]
    pub fn new(properties: &[wgpu::CooperativeMatrixProperties]) -> Self {
        use wgpu::CooperativeScalarType::{F16, F32};
        let has = |size| {
            let square = |p: &&wgpu::CooperativeMatrixProperties| [p.m_size, p.n_size, p.k_size] == [size; 3];
            properties.iter().filter(square).any(|p| (p.ab_type, p.cr_type) == (F16, F32))
        };
        Self { eight: has(8), sixteen: has(16) }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// The matrices of a device: as large as it has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MatrixTier {
    /// Rows and columns of a matrix.
    pub size: u32,
    /// Invocations in a subgroup.
    pub subgroup: u32,
}

impl MatrixTier {
    /// What NVIDIA's GPUs have: stands in tables of tiles for whatever the device has.
    pub const COMMON: Self = Self { size: 16, subgroup: 32 };
    /// Those that `specializations` list: subgroups of GPUs and of the newest llvmpipe.
    pub const SAMPLES: [Self; 3] = [Self::COMMON, Self { size: 8, subgroup: 32 }, Self { size: 8, subgroup: 8 }];
    /// The features that kernels with matrices need.
    pub const FEATURES: wgpu::Features = wgpu::Features::SUBGROUP
        .union(wgpu::Features::SHADER_F16)
        .union(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);

    /// What the device has, or everything that it lacks.
    pub fn of(capabilities: &Capabilities) -> Result<Self> {
        let mut reasons = Vec::new();
        let missing = Self::FEATURES - capabilities.features;
        if !missing.is_empty() {
            reasons.push(format!("matrices: f16 needs features that the device was created without: {missing}"));
        }
        let sizes = capabilities.options.matrix_sizes;
        if sizes.is_empty() {
            reasons.push(
                "matrices: f16 needs the adapter's 8 x 8 or 16 x 16 matrices of f16 with sums in f32, told in \
                 ContextOptions::matrix_sizes"
                    .into(),
            );
        }
        match capabilities.subgroup_size {
            Some(subgroup) if subgroup >= 4 && reasons.is_empty() => {
                return Ok(Self { size: if sizes.sixteen { 16 } else { 8 }, subgroup });
            }
            Some(subgroup) if subgroup < 4 => {
                reasons.push(format!("matrices: f16 needs subgroups of at least 4, the device's are of {subgroup}"));
            }
            None if missing.is_empty() => {
                reasons.push("matrices: f16 needs subgroups of one size, and the device's vary".into());
            }
            _ => {}
        }
        Err(Error::Unsupported { reasons })
    }

    /// The files that say how large matrices are, and how numbers become their elements.
    pub fn fragments(self) -> [&'static Source; 2] {
        let size = if self.size == 16 { source!("shared/matrices_16") } else { source!("shared/matrices_8") };
        [size, source!("shared/matrices")]
    }
}

impl fmt::Display for MatrixTier {
    /// As plans name it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, subgroup } = self;
        write!(f, "by matrices of {size} x {size} in f16, as asked, and subgroups of {subgroup}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wgpu::CooperativeScalarType::{self, F16, F32};

    fn listed(
        [m_size, n_size, k_size]: [u32; 3],
        ab_type: CooperativeScalarType,
        cr_type: CooperativeScalarType,
    ) -> wgpu::CooperativeMatrixProperties {
        wgpu::CooperativeMatrixProperties { m_size, n_size, k_size, ab_type, cr_type, saturating_accumulation: false }
    }

    #[test]
    fn what_wgsl_cannot_express_is_filtered() {
        let others = [
            listed([16, 8, 16], F16, F32),
            listed([16, 16, 16], F16, F16),
            listed([8, 8, 8], F32, F32),
            listed([32, 32, 32], F16, F32),
        ];
        assert!(MatrixSizes::new(&others).is_empty());
        assert_eq!(MatrixSizes::new(&[listed([8, 8, 8], F16, F32)]), MatrixSizes { eight: true, sixteen: false });
        let both = [&others[..], &[listed([16, 16, 16], F16, F32), listed([8, 8, 8], F16, F32)]].concat();
        assert_eq!(MatrixSizes::new(&both), MatrixSizes { eight: true, sixteen: true });
    }
}
