//! The tier above the portable one: matrices that a subgroup multiplies together, factors in f16, sums in f32.

use std::fmt;

use crate::context::Capabilities;
use crate::wgsl::{Constant, Source, source};
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
    /// counts as ±65504 (an infinity too, but in a tensor that is stored in f16, where it may stay one), and one below 2⁻¹⁴ may
    /// count as 0; no sum of finite numbers becomes infinite or NaN.
    /// A factor that is NaN may count as any number.
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

/// Invocations in a subgroup of each op's kernels with [`Matrices::F16`], for [`ContextOptions`](crate::ContextOptions).
///
/// Most GPUs have subgroups of one size. Those of AMD and Intel have several, and which of them a kernel gets, its compiled pipeline alone
/// knows. Hence an app that runs on them says it: what [`Context::matrix_subgroups`](crate::Context) has found, on the
/// same driver. A kernel that finds itself with subgroups of another size fills its outputs with NaN.
///
/// ```
/// let of_all = wgpu_attention::MatrixSubgroups::all(64);
/// assert_eq!(of_all.matmul, Some(64));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MatrixSubgroups {
    /// Of [`Attention`](crate::Attention).
    pub attention: Option<u32>,
    /// Of [`AttentionBackward`](crate::AttentionBackward).
    pub attention_backward: Option<u32>,
    /// Of [`GatedAttention`](crate::GatedAttention).
    pub gated_attention: Option<u32>,
    /// Of [`MatMul`](crate::MatMul).
    pub matmul: Option<u32>,
}

impl MatrixSubgroups {
    /// The same for every op.
    #[must_use]
    pub const fn all(size: u32) -> Self {
        let size = Some(size);
        Self { attention: size, attention_backward: size, gated_attention: size, matmul: size }
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

    /// What an op's kernels find on the device, or everything that it lacks. `told`: the size of their subgroups, if the caller has
    /// said it.
    pub fn of(capabilities: &Capabilities, told: impl Fn(MatrixSubgroups) -> Option<u32>) -> Result<Self> {
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
        // A subgroup is at least as large as its matrices are high.
        let least = if sizes.eight || sizes.is_empty() { 8 } else { 16 };
        match told(capabilities.options.matrix_subgroups).or(capabilities.subgroup_size) {
            Some(subgroup) if !subgroup.is_power_of_two() || subgroup > 128 => {
                reasons.push(format!(
                    "matrices: no device has subgroups of {subgroup}, as ContextOptions::matrix_subgroups says"
                ));
            }
            Some(subgroup) if subgroup >= least && reasons.is_empty() => {
                let size = if sizes.sixteen && subgroup >= 16 { 16 } else { 8 };
                return Ok(Self { size, subgroup });
            }
            Some(subgroup) if subgroup < least => {
                reasons.push(format!("matrices: f16 needs subgroups of at least {least}, these are of {subgroup}"));
            }
            None if missing.is_empty() => {
                reasons.push(
                    "matrices: f16 needs to know the size of subgroups, and the device has several: which of them kernels get is told \
                     in ContextOptions::matrix_subgroups"
                        .into(),
                );
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

/// Subgroups and keys of a step of an attention's tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowTile {
    pub subgroups: u32,
    pub keys: u32,
    pub tier: MatrixTier,
}

impl RowTile {
    /// The best first: more subgroups share what a step brings, and more keys its barriers. The largest takes 24 KiB where both
    /// dims are 64, so that several workgroups share a multiprocessor.
    const ALL: [[u32; 2]; 5] = [[4, 32], [2, 32], [2, 16], [1, 32], [1, 16]];

    /// Those for so many rows that find room on a device, the best first; `bytes` of workgroup memory.
    pub fn fitting(tier: MatrixTier, rows: u32, limits: &wgpu::Limits, bytes: impl Fn(&Self) -> u32) -> Vec<Self> {
        let fits = |own: &Self| {
            // Of few rows, no subgroup is idle.
            let used = own.subgroups == 1 || rows > own.rows() / 2;
            let shared = tier.subgroup.is_multiple_of(own.own_rows())
                && own.own_rows().is_multiple_of(tier.size)
                && own.keys.is_multiple_of(4 * own.width());
            used && shared
                && own.invocations() <= limits.max_compute_invocations_per_workgroup
                && bytes(own) <= limits.max_compute_workgroup_storage_size
        };
        let tile = |[subgroups, keys]: [u32; 2]| Self { subgroups, keys, tier };
        Self::ALL.map(tile).into_iter().filter(fits).collect()
    }

    /// Those of attention for these dims of q and of v.
    pub fn list(tier: MatrixTier, rows: u32, dims: [u32; 2], limits: &wgpu::Limits) -> Result<Vec<Self>> {
        let found = Self::fitting(tier, rows, limits, |own| own.bytes(dims));
        if found.is_empty() {
            let least = Self { subgroups: 1, keys: 16, tier }.bytes(dims);
            let most = limits.max_compute_workgroup_storage_size;
            let reason = format!(
                "matrices: f16 for q of {} and v of {} dims, by subgroups of {}, needs {least} bytes of workgroup memory, the \
                 device grants {most}; or its subgroups are too large",
                dims[0], dims[1], tier.subgroup
            );
            return Err(Error::Unsupported { reasons: vec![reason] });
        }
        Ok(found)
    }

    pub fn rows(self) -> u32 {
        self.own_rows() * self.subgroups
    }

    /// Rows that a subgroup owns: at least one invocation to a row.
    pub fn own_rows(self) -> u32 {
        self.tier.subgroup.min(16)
    }

    /// Invocations that share a row.
    pub fn width(self) -> u32 {
        self.tier.subgroup / self.own_rows()
    }

    pub fn invocations(self) -> u32 {
        self.subgroups * self.tier.subgroup
    }

    /// Workgroup memory, as the head of `shared/matrix_tile.wgsl` tells it.
    fn bytes(self, dims: [u32; 2]) -> u32 {
        let [q_dims, v_dims] = self.whole(dims);
        let (rows, keys) = (self.rows(), self.keys);
        let q_rows = if self.holds(dims) { 0 } else { rows };
        2 * ((keys + q_rows) * (q_dims + 8) + v_dims * (keys + 8) + rows * (keys + 8)) + 4 * (rows * (keys + 4) + 4)
    }

    /// Dims in whole matrices.
    pub fn whole(self, dims: [u32; 2]) -> [u32; 2] {
        dims.map(|dim| dim.next_multiple_of(self.tier.size))
    }

    /// Whether q stays in matrices: where they are few, beside those of o.
    fn holds(self, dims: [u32; 2]) -> bool {
        self.whole(dims)[0] <= 8 * self.tier.size
    }

    /// Values of which an invocation brings four dims at once: so many that it writes whole words, fewer where some were idle.
    fn value_keys(self, dims: [u32; 2]) -> u32 {
        if self.keys / 4 * self.whole(dims)[1] / 4 >= self.invocations() { 4 } else { 2 }
    }

    /// Loop iterations of an invocation outside the steps, and in one, exits counted.
    pub fn iterations(self, dims: [u32; 2]) -> [u32; 2] {
        let [keys, values] = self.whole(dims).map(|dims| (self.keys * dims / 8).div_ceil(self.invocations()) + 1);
        let [q_dims, v_dims] = self.whole(dims);
        [keys + q_dims + v_dims + 128, keys + values + q_dims + v_dims + 2 * self.keys + 16]
    }

    /// `exact`: whether q, k and v are stored in the f16 that matrices multiply.
    pub fn constants(self, dims: [u32; 2], exact: [bool; 3]) -> Vec<(&'static str, Constant)> {
        let four = |exact| Constant::Type(if exact { "vec4<f16>" } else { "vec4<f32>" });
        // Numbers of k and v on their way in an invocation's registers.
        let brought = self.keys * self.whole(dims).iter().sum::<u32>() / self.invocations();
        vec![
            ("SUBGROUP", Constant::U32(self.tier.subgroup)),
            ("SUBGROUPS", Constant::U32(self.subgroups)),
            ("KEYS", Constant::U32(self.keys)),
            ("OWN_ROWS", Constant::U32(self.own_rows())),
            ("VALUE_KEYS", Constant::U32(self.value_keys(dims))),
            ("AHEAD", Constant::Bool(brought <= 64)),
            ("UNROLL", Constant::Bool(self.keys / self.width() <= 16)),
            ("UNROLL_VALUES", Constant::Bool(self.keys * self.whole(dims)[1] <= 32 * self.tier.size * self.tier.size)),
            ("Q_F16", Constant::Bool(exact[0])),
            ("K_F16", Constant::Bool(exact[1])),
            ("V_F16", Constant::Bool(exact[2])),
            ("KeyFour", four(exact[1])),
            ("ValueFour", four(exact[2])),
        ]
    }

    pub fn fragments(self, dims: [u32; 2]) -> Vec<&'static Source> {
        let queries = if self.holds(dims) { source!("shared/queries_held") } else { source!("shared/queries_shared") };
        [source!("shared/matrix_tile"), queries].into_iter().chain(self.tier.fragments()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiles(rows: u32, dim: u32, granted: u32) -> Vec<[u32; 2]> {
        let limits = wgpu::Limits { max_compute_workgroup_storage_size: granted, ..wgpu::Limits::default() };
        let found = RowTile::list(MatrixTier::COMMON, rows, [dim; 2], &limits).unwrap_or_default();
        found.into_iter().map(|tile| [tile.subgroups, tile.keys]).collect()
    }

    #[test]
    fn tiles_fit_what_is_granted() {
        assert_eq!(tiles(1000, 64, 48 << 10)[0], [4, 32]);
        assert_eq!(tiles(1000, 64, 32 << 10)[0], [4, 32]);
        assert_eq!(tiles(1000, 64, 16 << 10)[0], [2, 16]);
        assert_eq!(tiles(1000, 128, 48 << 10)[0], [4, 32]);
        assert_eq!(tiles(1000, 128, 32 << 10)[0], [2, 32]);
        assert_eq!(tiles(1000, 256, 48 << 10)[0], [2, 16]);
        assert_eq!(tiles(1000, 256, 32 << 10)[0], [1, 16]);
        assert_eq!(tiles(1000, 128, 16 << 10)[0], [2, 16]);
        assert_eq!(tiles(1, 64, 48 << 10)[0], [1, 32], "one row");
        assert!(tiles(1000, 256, 16 << 10).is_empty(), "refused");
    }

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
