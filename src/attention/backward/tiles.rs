//! How a workgroup shares the products of a pair, and how much of its walk one takes.

use super::AttentionBackwardShapes;
use crate::context::Capabilities;
use crate::matrices::{MatrixTier, RowTile};
use crate::tile::{Grid, grid};
use crate::wgsl::{Constant, Source, source};

/// How a workgroup shares a tile, and the fours of dims that it sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tiles {
    pub grid: Grid,
    pub chunks: u32,
    /// In place of the grid, where a tile's products go by matrices.
    pub matrices: Option<RowTile>,
    /// Whether it has room for terms side by side.
    pub turned: bool,
}

impl Tiles {
    /// Of queries: of each product an invocation computes 8 by 8 numbers, and keeps 192 of them; past 128 dims, 4 by 8 and 4 by 16; of
    /// up to 16 that share a kv head, 4 by 4.
    pub fn of_queries(shapes: &AttentionBackwardShapes, granted: u32) -> Self {
        let chunks = shapes.head_dim.div_ceil(4);
        let rows = u64::from(shapes.q_heads / shapes.kv_heads.max(1)) * u64::from(shapes.q_len);
        let most = match chunks {
            _ if rows <= 16 => grid([4, 1, 4, 4], 16),
            0..=16 => grid([16, 2, 8, 2], 16),
            17..=32 => grid([8, 2, 8, 2], 16),
            _ => grid([16, 1, 8, 4], 16),
        };
        Self::within(most, chunks, granted)
    }

    /// Of keys, of which two gradients are summed: pairs are 8 by 4, sums 8 by 8 and 8 by 8, and an invocation keeps 192 as well.
    pub fn of_keys(shapes: &AttentionBackwardShapes, granted: u32) -> Self {
        let chunks = shapes.head_dim.max(shapes.v_dim).div_ceil(4);
        let most = match chunks {
            0..=16 => Grid { narrow: 8, ..grid([16, 2, 4, 2], 16) },
            17..=32 => grid([8, 2, 4, 2], 16),
            _ => grid([16, 1, 4, 4], 16),
        };
        Self::within(most, chunks, granted)
    }

    /// Of the bias, whose pairs themselves are summed.
    pub fn of_bias(granted: u32) -> Self {
        Self::within(grid([16, 2, 8, 1], 16), 1, granted)
    }

    fn within(most: Grid, chunks: u32, granted: u32) -> Self {
        let grid = if most.fits(chunks, granted) { most } else { Grid { slab: 8, ..most } };
        Self { grid, chunks, matrices: None, turned: false }
    }

    /// By matrices, if they find room: of so many rows, with sums of `first` and of `second`.
    pub fn by_matrices(
        self,
        tier: MatrixTier,
        shapes: &AttentionBackwardShapes,
        (rows, sums): (u64, [bool; 2]),
        limits: &wgpu::Limits,
    ) -> Self {
        let rows = rows.min(u32::MAX.into()) as u32;
        let best = |turned: bool| {
            let found = RowTile::fitting(tier, rows, limits, |tile| bytes(*tile, shapes, sums, turned));
            found.first().map(|tile| Self { matrices: Some(*tile), turned, ..self })
        };
        best(true).or_else(|| best(false)).unwrap_or(self)
    }

    pub fn rows(self) -> u32 {
        self.matrices.map_or(self.grid.rows(), RowTile::rows)
    }

    pub fn keys(self) -> u32 {
        self.matrices.map_or(self.grid.keys(self.chunks), |tile| tile.keys)
    }

    /// The most loop iterations of a step that sums `sums` times, counting one more for the exit of each run of a loop.
    pub fn iterations(self, shapes: &AttentionBackwardShapes, sums: u32) -> u32 {
        if let Some(tile) = self.matrices {
            return 2 * tile.iterations([shapes.head_dim, shapes.v_dim]).into_iter().sum::<u32>();
        }
        let slab = self.grid.slab;
        let products = shapes.head_dim.div_ceil(slab) + shapes.v_dim.div_ceil(slab);
        // Guarded, terms are added one by one.
        products * (slab / 4 + 2) + sums * self.keys().div_ceil(slab) * (slab + 2) + 8
    }
}

/// Whether the rows' factors stay in matrices, beside those of sums: where they are few.
fn holds(tile: RowTile, shapes: &AttentionBackwardShapes) -> bool {
    tile.whole([shapes.head_dim, shapes.v_dim]).iter().sum::<u32>() <= 8 * tile.tier.size
}

/// Workgroup memory with such sums, as the heads of `backward_matrices.wgsl` and of what goes with it tell it.
fn bytes(tile: RowTile, shapes: &AttentionBackwardShapes, sums: [bool; 2], turned: bool) -> u32 {
    let dims = tile.whole([shapes.head_dim, shapes.v_dim]);
    let (rows, keys) = (tile.rows(), tile.keys);
    let factors = if holds(tile, shapes) { keys } else { keys + rows };
    let (products, weights) = (1 + u32::from(shapes.dout), sums.map(u32::from).iter().sum::<u32>());
    let turned = [0, 1].map(|sum| if turned && sums[sum] { dims[sum] } else { 4 }).iter().sum::<u32>();
    let of_rows = rows * (4 * products * (keys + 4) + 2 * weights * (keys + 8));
    2 * factors * (dims[0] + dims[1] + 16) + 2 * turned * (keys + 8) + of_rows + 20 * keys + 32
}

/// What kernels by matrices are made of.
pub(super) fn of_matrices(
    tile: RowTile,
    turned: bool,
    shapes: &AttentionBackwardShapes,
) -> (Vec<(&'static str, Constant)>, Vec<&'static Source>) {
    let [first, second] = tile.whole([shapes.head_dim, shapes.v_dim]);
    // Numbers of items on their way in an invocation's registers.
    let brought = tile.keys * (first + second) / tile.invocations();
    let constants = vec![
        ("SUBGROUP", Constant::U32(tile.tier.subgroup)),
        ("SUBGROUPS", Constant::U32(tile.subgroups)),
        ("KEYS", Constant::U32(tile.keys)),
        ("OWN_ROWS", Constant::U32(tile.own_rows())),
        ("TURNED", Constant::Bool(turned)),
        ("AHEAD", Constant::Bool(brought <= 32)),
        ("UNROLL", Constant::Bool(tile.keys / tile.width() <= 16)),
        ("UNROLL_TERMS", Constant::Bool(tile.keys * (first + second) <= 32 * tile.tier.size * tile.tier.size)),
    ];
    let factors = match holds(tile, shapes) {
        true => source!("attention/backward_factors_held"),
        false => source!("attention/backward_factors_shared"),
    };
    let own = [source!("attention/backward_matrices"), factors];
    (constants, own.into_iter().chain(tile.tier.fragments()).collect())
}

/// What one kernel over pairs walks.
pub(super) struct Walk {
    /// Workgroups, were nothing split.
    pub tiles: u64,
    /// Keys, queries, or tiles of pairs, and as many as go in one step.
    pub length: u32,
    pub step: u32,
    /// The fewest steps that are worth a workgroup of their own.
    pub least: u32,
    /// Of a step, operations of a workgroup and loop iterations of an invocation.
    pub flops: u64,
    pub iterations: u32,
    /// Numbers that each range leaves to be summed.
    pub left: u64,
}

impl Walk {
    /// How much of it a workgroup takes, in whole steps: as occupies the adapter, and as the workspace, the driver and the caller's own
    /// bounds allow.
    pub fn range(&self, device: &Capabilities, most: Option<u32>, used_bytes: u64) -> u32 {
        let enough = if device.is_cpu { 8 } else { 256 };
        let steps = u64::from(self.length.div_ceil(self.step));
        let occupying = if self.tiles >= enough { steps } else { (steps * self.tiles / enough).max(self.least.into()) };
        let room = (device.workspace_room() / 2).saturating_sub(used_bytes);
        let ranges = (room / self.left.saturating_mul(4).max(1)).max(1);
        let mut range = occupying.max(steps.div_ceil(ranges));
        range = range.min(device.options.max_flops_per_dispatch / self.flops.max(1));
        range = range.min(most.map_or(u64::MAX, |most| u64::from(most / self.step)));
        range = range.min(device.loop_cap.map_or(u64::MAX, |cap| u64::from(cap.saturating_sub(512) / self.iterations)));
        range.clamp(1, steps.max(1)) as u32 * self.step
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ContextOptions;

    #[test]
    fn every_tile_fits_what_each_device_grants() {
        for head_dim in 1..=256 {
            for (v_dim, q_len) in [(head_dim, 16), (head_dim, 17), (257 - head_dim, 1000)] {
                let shapes =
                    AttentionBackwardShapes { v_dim, q_len, ..AttentionBackwardShapes::new(1, 1, 99, head_dim) };
                for granted in [16 << 10, 32 << 10] {
                    for tiles in
                        [Tiles::of_queries(&shapes, granted), Tiles::of_keys(&shapes, granted), Tiles::of_bias(granted)]
                    {
                        assert!(tiles.grid.fits(tiles.chunks, granted), "{head_dim}, {v_dim}: {tiles:?}");
                        let invocations = tiles.grid.height * tiles.grid.width(tiles.chunks);
                        assert!(invocations <= 256, "{head_dim}, {v_dim}: {invocations} invocations");
                    }
                }
            }
        }
    }

    #[test]
    fn tiles_by_matrices_fit_what_is_granted() {
        let found = |dim: u32, sums: [bool; 2], kib: u32| {
            let limits = wgpu::Limits { max_compute_workgroup_storage_size: kib << 10, ..wgpu::Limits::default() };
            let shapes = AttentionBackwardShapes::new(1, 1, 99, dim);
            let tiles = Tiles::of_bias(0).by_matrices(MatrixTier::COMMON, &shapes, (99, sums), &limits);
            tiles.matrices.map(|tile| (tile.rows(), tile.keys, tiles.turned))
        };
        assert_eq!(found(64, [true, true], 48), Some((64, 32, true)));
        assert_eq!(found(64, [true, true], 16), Some((16, 16, true)));
        assert_eq!(found(128, [true, false], 32), Some((16, 16, true)));
        assert_eq!(found(128, [true, true], 32), Some((16, 16, false)), "terms lie once");
        assert_eq!(found(256, [true, false], 48), Some((16, 16, false)));
        assert_eq!(found(256, [true, false], 32), None);
    }

    const WALK: Walk =
        Walk { tiles: 4, length: 1 << 20, step: 64, least: 4, flops: 1 << 21, iterations: 500, left: 1 << 12 };

    #[test]
    fn few_tiles_are_cut_into_ranges() {
        let device = Capabilities::plain();
        assert_eq!(WALK.range(&device, None, 0), (1 << 20) / 64, "256 workgroups");
        assert_eq!(Walk { tiles: 256, ..WALK }.range(&device, None, 0), 1 << 20);
        assert_eq!(Walk { length: 100, ..WALK }.range(&device, None, 0), 128, "one step more than there is");
        assert_eq!(WALK.range(&device, Some(1000), 0), 960, "whole steps of what the caller allows");
        // 16 KiB a range, in half of the bound.
        let options = ContextOptions { max_workspace_bytes: 1 << 20, ..ContextOptions::default() };
        let short = Capabilities { options, ..Capabilities::plain() };
        assert_eq!(WALK.range(&short, None, 0), (1 << 20) / 32);
        assert_eq!(WALK.range(&short, None, 1 << 20), 1 << 20, "without any room, one");
    }

    #[test]
    fn ranges_keep_within_a_drivers_loops_and_the_work_of_a_dispatch() {
        let capped = Capabilities { loop_cap: Some(65_535), ..Capabilities::plain() };
        let whole = Walk { tiles: 256, ..WALK };
        assert_eq!(whole.range(&capped, None, 0), 64 * ((65_535 - 512) / 500));
        let options = ContextOptions { max_flops_per_dispatch: 1 << 24, ..ContextOptions::default() };
        let short = Capabilities { options, ..Capabilities::plain() };
        assert_eq!(whole.range(&short, None, 0), 64 * 8);
    }
}
