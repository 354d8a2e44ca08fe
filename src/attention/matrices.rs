//! The tiles of attention on cooperative matrices: by what a device grants, not by a table of adapters.

use super::plan::Kernel;
use crate::matrices::MatrixTier;
use crate::{Error, Result};

/// Rows of o that a subgroup keeps.
pub(super) const OWN_ROWS: u32 = 16;

/// Subgroups and keys of a step, the best first: more subgroups share what a step brings, and more keys its barriers. The largest takes 27.5 KiB at D = 64, so that several workgroups share a multiprocessor.
const TILES: [[u32; 2]; 5] = [[4, 32], [2, 32], [2, 16], [1, 32], [1, 16]];

/// The tiles for so many rows and these dims on a device, the best first.
pub(super) fn kernels(
    tier: MatrixTier,
    rows: u32,
    [head_dim, v_dim]: [u32; 2],
    limits: &wgpu::Limits,
) -> Result<Vec<Kernel>> {
    let fits = |&[subgroups, keys]: &[u32; 2]| {
        // Of few rows, no subgroup is idle.
        let used = subgroups == 1 || rows > OWN_ROWS * subgroups / 2;
        let shared = tier.subgroup.is_multiple_of(4) && keys.is_multiple_of(tier.subgroup / 4);
        used && shared
            && subgroups * tier.subgroup <= limits.max_compute_invocations_per_workgroup
            && bytes(tier, subgroups, keys, [head_dim, v_dim]) <= limits.max_compute_workgroup_storage_size
    };
    let kernel = |[subgroups, keys]: [u32; 2]| Kernel::Matrices { subgroups, keys, tier };
    let found: Vec<_> = TILES.into_iter().filter(fits).map(kernel).collect();
    if found.is_empty() {
        let [least, most] = [bytes(tier, 1, 16, [head_dim, v_dim]), limits.max_compute_workgroup_storage_size];
        let reason = format!(
            "matrices: f16 at head_dim {head_dim} and v_dim {v_dim}, by subgroups of {}, needs {least} bytes of workgroup \
             memory, the device grants {most}; or its subgroups are too large",
            tier.subgroup
        );
        return Err(Error::Unsupported { reasons: vec![reason] });
    }
    Ok(found)
}

/// Workgroup memory, as the head of `attention/cooperative.wgsl` tells it.
fn bytes(tier: MatrixTier, subgroups: u32, keys: u32, dims: [u32; 2]) -> u32 {
    let [q_stride, v_stride] = dims.map(|dim| dim.next_multiple_of(tier.size) + 8);
    let rows = OWN_ROWS * subgroups;
    2 * (rows * q_stride + keys * q_stride.max(v_stride) + rows * (keys + 8)) + 4 * (rows * (keys + 4) + subgroups)
}

/// Loop iterations of an invocation outside the steps, and in one, exits counted.
pub(super) fn iterations(tier: MatrixTier, subgroups: u32, keys: u32, dims: [u32; 2]) -> [u32; 2] {
    let [q_chunks, v_chunks] = dims.map(|dim| dim.next_multiple_of(tier.size) / 4);
    let workgroup = subgroups * tier.subgroup;
    let width = tier.subgroup / 4;
    let panels = dims[1].div_ceil(tier.size) * (tier.size.div_ceil(width) + 2) + 1;
    let bring = |chunks: u32| chunks.div_ceil(workgroup) + 1;
    let step =
        bring(keys * q_chunks) + bring(keys * v_chunks) + q_chunks + 1 + 2 * (keys / width + 1) + keys + 16 + panels;
    [bring(subgroups * OWN_ROWS / 4 * q_chunks) + panels + 128, step + 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiles(tier: MatrixTier, rows: u32, dim: u32, granted: u32) -> Vec<[u32; 2]> {
        let limits = wgpu::Limits { max_compute_workgroup_storage_size: granted, ..wgpu::Limits::default() };
        let found = kernels(tier, rows, [dim; 2], &limits).unwrap_or_default();
        let sizes = |kernel| match kernel {
            Kernel::Matrices { subgroups, keys, .. } => [subgroups, keys],
            _ => [0; 2],
        };
        found.into_iter().map(sizes).collect()
    }

    #[test]
    fn tiles_fit_what_is_granted() {
        let own = MatrixTier::COMMON;
        assert_eq!(tiles(own, 1000, 64, 48 << 10)[0], [4, 32]);
        assert_eq!(tiles(own, 1000, 64, 32 << 10)[0], [4, 32]);
        assert_eq!(tiles(own, 1000, 64, 16 << 10)[0], [2, 16]);
        assert_eq!(tiles(own, 1000, 128, 48 << 10)[0], [4, 32]);
        assert_eq!(tiles(own, 1000, 128, 32 << 10)[0], [2, 32]);
        assert_eq!(tiles(own, 1000, 256, 32 << 10)[0], [2, 16]);
        assert_eq!(tiles(own, 1000, 128, 16 << 10)[0], [1, 16]);
        assert_eq!(tiles(own, 1, 64, 48 << 10)[0], [1, 32], "one row");
        assert!(tiles(own, 1000, 256, 16 << 10).is_empty(), "refused");
    }
}
