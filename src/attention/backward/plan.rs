//! In what dispatches gradients flow back.

use super::super::config::ScaleTerms;
use super::super::{AttentionConfig, Causal, Scale};
use super::tiles::{Tiles, Walk};
use super::{AttentionBackward, AttentionBackwardShapes, OPERANDS, kernels};
use crate::context::Capabilities;
use crate::dispatch::{Plan, PlanBuilder, Value, View};
use crate::matrices::MatrixTier;
use crate::op::{self, GivenNames, Kernels, Operand};
use crate::tensor::{evenly, product};
use crate::tuning::NoOffer;
use crate::wgsl::Specialization;
use crate::{Matrices, Result};

pub(super) type Problem = op::Problem<AttentionBackwardShapes>;

impl Kernels for AttentionBackward {
    const NAME: &'static str = "attention_backward";
    const OPERANDS: &'static [Operand] = OPERANDS;
    type Config = AttentionConfig;
    type Shapes = AttentionBackwardShapes;
    type Offer = NoOffer;

    fn check_config(config: &AttentionConfig) -> Result<()> {
        config.check()
    }

    fn check(_: &AttentionConfig, shapes: &AttentionBackwardShapes) -> Result<()> {
        shapes.check()
    }

    fn refuses(config: &AttentionConfig, given: &GivenNames, row: &Operand) -> Option<&'static str> {
        let per_row = config.scale == Scale::PerRow;
        let comes_in = ["dout", "dlse", "dentropy"].iter().any(|name| given.input(name));
        let asked = given.on_host || OPERANDS.iter().any(|row| given.output(row.name));
        match (row.name, given.has(row)) {
            ("dout", false) if !comes_in => Some("is missing, and so are dlse and dentropy: no gradient comes in"),
            ("dq", false) if !asked => Some("is missing, and so are all others: no gradient is asked for"),
            ("dentropy", true) if !given.input("entropy") => Some("is given, but entropy is not"),
            ("row_scale", true) if !per_row => Some("is given, but the scale is not per_row"),
            ("row_scale", false) if per_row => Some("the per_row scale needs it"),
            ("dbias", true) if !given.input("bias") => Some("is given, but bias is not"),
            ("drow_scale", true) if !per_row => Some("is given, but the scale is not per_row"),
            ("dscale", true) if per_row => Some("is given, but the scale is per_row, of which there is a drow_scale"),
            _ => None,
        }
    }

    fn build(plan: PlanBuilder<'_>, config: &AttentionConfig, problem: &Problem, _: Option<&NoOffer>) -> Result<Plan> {
        let tier = match config.matrices {
            Matrices::None => None,
            Matrices::F16 => Some(MatrixTier::of(plan.device(), |told| told.attention_backward)?),
        };
        build(plan, config, problem, tier)
    }
}

/// What all dispatches of a plan are given.
struct Backward<'p> {
    config: &'p AttentionConfig,
    problem: &'p Problem,
    shapes: AttentionBackwardShapes,
    /// Of the attention matrix, over all sequences and heads.
    rows: u32,
    facts: View,
    /// That multiply, if they are asked for.
    tier: Option<MatrixTier>,
}

/// What a pass costs, and why it is as it is.
type Told = (u64, String);
/// Of what is asked for of two gradients, if it sums two.
type Pass<'p> = fn(&Backward<'p>, &mut PlanBuilder<'_>, [bool; 2]) -> Result<Told>;

/// Names of numbers in the kernels' uniforms that not all of them use.
const UNUSED: [&str; 13] = [
    "tiles",
    "key_tiles",
    "splits",
    "split_keys",
    "split_heads",
    "split_rows",
    "row_splits",
    "bias_batches",
    "bias_heads",
    "sum_batches",
    "sum_heads",
    "sum_tiles",
    "split_terms",
];

fn build(
    mut plan: PlanBuilder<'_>,
    config: &AttentionConfig,
    problem: &Problem,
    tier: Option<MatrixTier>,
) -> Result<Plan> {
    let shapes = problem.shapes;
    let rows = product([shapes.batch, shapes.q_heads, shapes.q_len]);
    let facts = plan.workspace("numbers of rows", 16 * (rows + u64::from(shapes.batch)).max(1))?;
    let backward = Backward { config, problem, shapes, rows: rows as u32, facts, tier };
    backward.write_facts(&mut plan)?;
    let AttentionBackwardShapes { dk, dv, kv_len, head_dim, v_dim, .. } = shapes;
    // Of wide heads, matrices of both sums would fill the registers.
    let by_matrices = || backward.tiles(Tiles::of_bias(0), (kv_len.into(), [true, false]), plan.device()).matrices;
    let apart = dk && dv && head_dim + v_dim > 256 && by_matrices().is_some();
    // Queries last, as scales then give way to their own derivatives.
    let passes: [([bool; 2], Pass<'_>); 4] = [
        ([dk, dv && !apart], Backward::keys),
        ([false, apart], Backward::keys),
        ([shapes.dbias, false], Backward::bias),
        ([shapes.dq || shapes.drow_scale || shapes.dscale, false], Backward::queries),
    ];
    let (mut flops, mut reasons) = (0_u64, Vec::new());
    for (asked, pass) in passes.into_iter().filter(|(asked, _)| asked.contains(&true)) {
        let (own, reason) = plan.in_passing(|plan| pass(&backward, plan, asked))?;
        flops = flops.saturating_add(own);
        reasons.push(reason);
    }
    plan.finish(flops, problem.bytes(), reasons.join("; "))
}

impl Backward<'_> {
    fn values(&self, own: &[(&'static str, u32)]) -> Vec<(&'static str, Value)> {
        let (config, shapes) = (self.config, &self.shapes);
        let visibility = config.visibility();
        // Further back no row sees a key either, and what the first row is that does would pass what an i32 holds.
        let least = -(shapes.q_len as i32).saturating_add(visibility.right());
        let offset = visibility.fixed_offset(shapes.kv_len).max(least);
        let mut values: Vec<(&'static str, Value)> = own.iter().map(|&(name, number)| (name, number.into())).collect();
        values.extend([
            ("rows", self.rows.into()),
            ("heads", shapes.q_heads.into()),
            ("len", shapes.q_len.into()),
            ("group", self.group().into()),
            ("offset", offset.into()),
            ("align_end", (config.causal == Causal::BottomRight).into()),
            ("left", visibility.left().into()),
            ("right", visibility.right().into()),
            ("softcap", config.softcap.unwrap_or(1.0).into()),
        ]);
        values
    }

    fn group(&self) -> u32 {
        self.shapes.q_heads / self.shapes.kv_heads
    }

    /// Of all visible pairs, so many multiply-adds each.
    fn flops(&self, products: u32) -> u64 {
        self.shapes.forward().visible_pairs(self.config).saturating_mul(2 * u64::from(products))
    }

    fn view(&self, name: &str) -> View {
        self.problem.view(name).unwrap_or(View::NOWHERE)
    }

    fn write_facts(&self, plan: &mut PlanBuilder<'_>) -> Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        let terms = self.config.scale.terms(self.shapes.head_dim);
        let mut values = self.values(&[]);
        values.push(("scale", (terms.factor as f32).into()));
        let views = [("facts", self.facts), ("x", self.view("o"))];
        let flops = u64::from(kernels::ROWS * self.shapes.v_dim);
        let workgroups = self.rows.div_ceil(kernels::ROWS).into();
        plan.dispatch(&kernels::rows(self.config, self.problem), workgroups, flops, &values, &views)?;
        self.write_scales(plan, terms, true)
    }

    /// Scales as these terms have them, and lengths, where there are any of their own.
    fn write_scales(&self, plan: &mut PlanBuilder<'_>, terms: ScaleTerms, lens: bool) -> Result<()> {
        let Some(kernel) = kernels::scales(self.config, self.problem, lens) else { return Ok(()) };
        let tiles = (u64::from(self.group()) * u64::from(self.shapes.q_len)).div_ceil(4) as u32;
        let mut values = self.values(&[("row_tiles", tiles), ("scale_floor", terms.floor)]);
        values.extend([("scale", Value::from(terms.factor as f32)), ("scale_least", (terms.least as f32).into())]);
        let own = kernels::scale_tiles(self.config, self.problem);
        let counted = if own == 1 { self.shapes.kv_len } else { 0 };
        plan.expect_loops("counting the visible keys of a mask", u64::from(counted / kernels::WORKGROUP) + 32)?;
        let workgroups = product([self.shapes.batch, self.shapes.kv_heads, tiles]).div_ceil(own.into());
        plan.dispatch(&kernel, workgroups, u64::from(counted) + 64, &values, &[("facts", self.facts)])
    }

    /// Dispatches a kernel over pairs, `partials` if it leaves its results there.
    fn walk(
        &self,
        plan: &mut PlanBuilder<'_>,
        kernel: &Specialization,
        (workgroups, flops): (u64, u64),
        own: &[(&'static str, u32)],
        partials: Option<View>,
    ) -> Result<()> {
        if workgroups == 0 {
            return Ok(());
        }
        let mut values = self.values(own);
        values.extend(UNUSED.map(|name| (name, 1_u32.into())));
        values.push(("first_pair", 0_u32.into()));
        values.extend([
            ("scale", Value::from(1.0_f32)),
            ("scale_floor", 1_u32.into()),
            ("scale_least", 0.0_f32.into()),
        ]);
        let mut views = vec![("facts", self.facts)];
        views.extend(partials.map(|view| ("partials", view)));
        plan.dispatch(kernel, workgroups, flops, &values, &views)
    }

    /// The pairs of batch and kv head in blocks, each with room for what the ranges of its tiles leave, `left` numbers of a pair, if it is
    /// to be summed: as few blocks as find room, one after the other in the same place.
    fn in_blocks(
        &self,
        plan: &mut PlanBuilder<'_>,
        (partial, left): (bool, u64),
        mut add: impl FnMut(&mut PlanBuilder<'_>, [u32; 2], Option<View>) -> Result<()>,
    ) -> Result<()> {
        let pairs = product([self.shapes.batch, self.shapes.kv_heads]) as u32;
        let bytes = left.saturating_mul(4);
        let room = (plan.device().workspace_room() / 2).saturating_sub(plan.workspace_bytes());
        let most = if partial { (room / bytes.max(1)).clamp(1, pairs.max(1).into()) as u32 } else { pairs };
        for (first, count) in evenly(pairs, most, 1) {
            plan.in_passing(|plan| {
                let bytes = bytes.saturating_mul(count.into()).max(16);
                let partials = partial.then(|| plan.workspace("partial gradients", bytes)).transpose()?;
                add(plan, [first, count], partials)
            })?;
        }
        Ok(())
    }

    /// Sums what ranges have left of some rows of a gradient of heads of so many, if it is asked for.
    fn combine(
        &self,
        plan: &mut PlanBuilder<'_>,
        name: &'static str,
        partials: View,
        [rows, heads, len, dim]: [u32; 4],
        [splits, record, first_chunk]: [u32; 3],
        first_row: u32,
    ) -> Result<()> {
        let Some((layout, view)) = self.problem.output(name).zip(self.problem.output_view(name)) else { return Ok(()) };
        let chunks = dim.div_ceil(4);
        let own = [
            ("rows", rows),
            ("first_row", first_row),
            ("heads", heads.max(1)),
            ("len", len.max(1)),
            ("splits", splits),
            ("record", record),
            ("first_chunk", first_chunk),
            ("chunks", chunks.max(1)),
            ("dim", dim),
        ];
        plan.expect_loops(format_args!("{name}: partial gradients"), u64::from(splits) + 32)?;
        let workgroups = product([rows, chunks]).div_ceil(kernels::WORKGROUP.into());
        let flops = product([4, kernels::WORKGROUP, splits.max(1)]);
        let views = [("partials", partials), ("facts", self.facts), ("gradient", view)];
        plan.dispatch(&kernels::combine(layout, name == "dq"), workgroups, flops, &self.values(&own), &views)
    }

    /// Tiles on matrices where those are asked for and find room, for tiles of so many rows and these sums.
    fn tiles(&self, tiles: Tiles, of: (u64, [bool; 2]), device: &Capabilities) -> Tiles {
        self.tier.map_or(tiles, |tier| tiles.by_matrices(tier, &self.shapes, of, &device.limits))
    }

    /// The gradients of keys and values.
    fn keys(&self, plan: &mut PlanBuilder<'_>, [dk, dv]: [bool; 2]) -> Result<Told> {
        let AttentionBackwardShapes { batch, kv_heads, kv_len, q_len, head_dim, v_dim, dout, .. } = self.shapes;
        let device = plan.device();
        let tiles = Tiles::of_keys(&self.shapes, device.limits.max_compute_workgroup_storage_size);
        let tiles = self.tiles(tiles, (kv_len.into(), [dk, dv]), device);
        let key_tiles = kv_len.div_ceil(tiles.rows());
        let record = head_dim.div_ceil(4) + v_dim.div_ceil(4);
        let of_out = u32::from(dout) * v_dim;
        let products = head_dim + u32::from(dk) * (head_dim + of_out) + u32::from(dv) * of_out;
        // Each head is walked in whole steps.
        let of_head = q_len.max(1).next_multiple_of(tiles.keys());
        let walk = Walk {
            tiles: product([batch, kv_heads, key_tiles]),
            length: self.group().saturating_mul(of_head),
            step: tiles.keys(),
            least: 4,
            flops: 2 * product([products, tiles.rows(), tiles.keys()]),
            iterations: tiles.iterations(&self.shapes, 2),
            left: 4 * product([batch, kv_heads, kv_len, record]),
        };
        let range = walk.range(device, device.options.max_keys_per_split, plan.workspace_bytes());
        // Some heads, or some queries of one. Without a gradient of o there is none of v, whatever is walked.
        let (split_heads, split_rows) = match range / of_head {
            0 => (1, range),
            heads => (heads.min(self.group()), q_len.max(1)),
        };
        let row_splits = if dk || dout { q_len.div_ceil(split_rows) } else { 0 };
        let splits = self.group().div_ceil(split_heads) * row_splits;
        let bound = [true, true, true, true, dout, self.shapes.mask, self.shapes.bias_rows.is_some(), dk, dv];
        let bound = bound.map(u32::from).iter().sum::<u32>();
        let crowded = bound > device.limits.max_storage_buffers_per_shader_stage;

        let partial = splits != 1 || crowded;
        let kernel = kernels::keys(self.config, self.problem, tiles, partial, [dk, dv]);
        let flops = self.flops(products) / (walk.tiles * u64::from(splits)).max(1);
        let left = 4 * product([kv_len, record, splits]);
        self.in_blocks(plan, (partial, left), |plan, [first, pairs], partials| {
            let own = [
                ("first_pair", first),
                ("tiles", key_tiles),
                ("splits", splits),
                ("split_heads", split_heads),
                ("split_rows", split_rows),
                ("row_splits", row_splits),
            ];
            self.walk(plan, &kernel, (product([pairs, key_tiles, splits]), flops), &own, partials)?;
            let Some(partials) = partials else { return Ok(()) };
            let both = [(dk, "dk", head_dim, 0), (dv, "dv", v_dim, head_dim.div_ceil(4))];
            for (_, name, dim, first_chunk) in both.into_iter().filter(|(asked, ..)| *asked) {
                let rows = [pairs * kv_len, kv_heads, kv_len, dim];
                self.combine(plan, name, partials, rows, [splits, record, first_chunk], first * kv_len)?;
            }
            Ok(())
        })?;
        let reason = self.tell("keys", tiles, "queries", (splits, self.group() * q_len));
        Ok((
            self.flops(products),
            if crowded { reason + ", combined as nine buffers are more than bound" } else { reason },
        ))
    }

    /// That of the bias.
    fn bias(&self, plan: &mut PlanBuilder<'_>, _: [bool; 2]) -> Result<Told> {
        let AttentionBackwardShapes { batch, q_heads, q_len, kv_len, head_dim, v_dim, dout, .. } = self.shapes;
        let whole = [batch, q_heads, q_len];
        let own = [self.shapes.bias_batches, self.shapes.bias_heads, self.shapes.bias_rows].map(|own| own.unwrap_or(0));
        let device = plan.device();
        let tiles = Tiles::of_bias(device.limits.max_compute_workgroup_storage_size);
        let (row_tiles, key_tiles) = (q_len.div_ceil(tiles.rows()), kv_len.div_ceil(tiles.keys()));
        let [sum_batches, sum_heads] = [0, 1].map(|axis| if own[axis] == 1 { whole[axis] } else { 1 });
        let (own_tiles, sum_tiles) = if kernels::sums_rows(&self.shapes) { (1, row_tiles) } else { (row_tiles, 1) };
        let products = head_dim + u32::from(dout) * v_dim;
        let chunks = kv_len.div_ceil(4);
        let terms = product([sum_batches, sum_heads, sum_tiles]);
        let walk = Walk {
            tiles: product([own[0], own[1], own_tiles, key_tiles]),
            length: u32::try_from(terms).unwrap_or(u32::MAX),
            step: 1,
            least: 1,
            flops: 2 * product([products, tiles.rows(), tiles.keys()]),
            iterations: tiles.iterations(&self.shapes, 0),
            left: 4 * product([own[0], own[1], own[2], chunks]),
        };
        let split_terms = walk.range(device, None, plan.workspace_bytes());
        let splits = walk.length.div_ceil(split_terms);

        let kernel = kernels::bias(self.config, self.problem, tiles, splits != 1);
        let numbers = [
            ("tiles", own_tiles),
            ("key_tiles", key_tiles),
            ("splits", splits),
            ("bias_batches", own[0]),
            ("bias_heads", own[1]),
            ("sum_batches", sum_batches),
            ("sum_heads", sum_heads),
            ("sum_tiles", sum_tiles),
            ("split_terms", split_terms),
        ];
        let workgroups = walk.tiles.saturating_mul(splits.into());
        let flops = self.flops(products) / workgroups.max(1);
        let bytes = walk.left.saturating_mul(4).saturating_mul(splits.into()).max(16);
        let partials = (splits != 1).then(|| plan.workspace("partial gradients", bytes)).transpose()?;
        self.walk(plan, &kernel, (workgroups, flops), &numbers, partials)?;
        if let Some(partials) = partials {
            let rows = [product(own) as u32, own[1], own[2], kv_len];
            self.combine(plan, "dbias", partials, rows, [splits, chunks, 0], 0)?;
        }
        Ok((self.flops(products), self.tell("bias", tiles, "tiles of pairs", (splits, walk.length))))
    }

    /// Those of queries and scales.
    fn queries(&self, plan: &mut PlanBuilder<'_>, _: [bool; 2]) -> Result<Told> {
        let AttentionBackwardShapes { batch, q_heads, kv_heads, q_len, kv_len, head_dim, v_dim, dout, .. } =
            self.shapes;
        let of_scales = self.shapes.drow_scale || self.shapes.dscale;
        let device = plan.device();
        let tiles = Tiles::of_queries(&self.shapes, device.limits.max_compute_workgroup_storage_size);
        let rows = u64::from(self.group()) * u64::from(q_len);
        let tiles = self.tiles(tiles, (rows, [true, false]), device);
        let row_tiles = rows.div_ceil(tiles.rows().into()) as u32;
        let products = 2 * head_dim + u32::from(dout) * v_dim;
        let walk = Walk {
            tiles: product([batch, kv_heads, row_tiles]),
            length: kv_len,
            step: tiles.keys(),
            least: 4,
            flops: 2 * product([products, tiles.rows(), tiles.keys()]),
            iterations: tiles.iterations(&self.shapes, 1),
            left: 4 * product([self.rows, tiles.chunks]),
        };
        let split_keys = walk.range(device, device.options.max_keys_per_split, plan.workspace_bytes());
        let splits = kv_len.div_ceil(split_keys);

        let slopes = of_scales.then(|| self.slopes(plan)).transpose()?;
        let partial = splits != 1 || of_scales;
        let kernel = kernels::queries(self.config, self.problem, tiles, partial);
        let flops = self.flops(products) / (walk.tiles * u64::from(splits)).max(1);
        let of_pair = self.group() * q_len;
        let left = 4 * product([of_pair, tiles.chunks, splits]);
        self.in_blocks(plan, (partial, left), |plan, [first, pairs], partials| {
            let own = [("first_pair", first), ("tiles", row_tiles), ("splits", splits), ("split_keys", split_keys)];
            self.walk(plan, &kernel, (product([pairs, row_tiles, splits]), flops), &own, partials)?;
            let Some(partials) = partials else { return Ok(()) };
            let (rows, first_row) = (pairs * of_pair, first * of_pair);
            let sizes = [rows, q_heads, q_len, head_dim];
            self.combine(plan, "dq", partials, sizes, [splits, tiles.chunks, 0], first_row)?;
            slopes.map_or(Ok(()), |slopes| self.write_slopes(plan, (partials, slopes), splits, [first_row, rows]))
        })?;
        if let Some(slopes) = slopes {
            self.sum_slopes(plan, slopes)?;
        }
        Ok((self.flops(products), self.tell("queries", tiles, "keys", (splits, walk.length))))
    }

    /// The gradient of scales that is asked for, and as how many sequences, heads and rows it has them.
    fn of_scales(&self) -> (View, [u32; 3]) {
        let (name, own) = match self.shapes.dscale {
            true => ("dscale", [1, self.shapes.q_heads, 1]),
            false => {
                let extents = [self.shapes.scale_batches, self.shapes.scale_heads, self.shapes.scale_rows];
                ("drow_scale", extents.map(|extent| extent.unwrap_or(0)))
            }
        };
        (self.problem.output_view(name).unwrap_or(View::NOWHERE), own)
    }

    /// Where each row's gradient goes: where it is asked for, or is summed.
    fn slopes(&self, plan: &mut PlanBuilder<'_>) -> Result<View> {
        let AttentionBackwardShapes { batch, q_heads, q_len, dscale, .. } = self.shapes;
        let (gradient, own) = self.of_scales();
        if !dscale && own == [batch, q_heads, q_len] {
            return Ok(gradient);
        }
        let mut slopes = plan.workspace("gradients of rows", (4 * u64::from(self.rows)).max(16))?;
        slopes.strides[..3].copy_from_slice(&[q_heads.saturating_mul(q_len), q_len, 1]);
        slopes.names[..3].copy_from_slice(&["batch", "head", "row"]);
        Ok(slopes)
    }

    /// From what is left of dq before its scale, of some rows.
    fn write_slopes(
        &self,
        plan: &mut PlanBuilder<'_>,
        (partials, slopes): (View, View),
        splits: u32,
        [first_row, rows]: [u32; 2],
    ) -> Result<()> {
        if rows == 0 {
            return Ok(());
        }
        let head_dim = self.shapes.head_dim;
        // By what number: a factor of all rows; or what takes the place of their scales later.
        let terms = self.config.scale.slope(head_dim);
        let factor = if terms.log_n { 1.0 } else { terms.factor as f32 };
        let mut values = self.values(&[("splits", splits), ("first_row", first_row), ("rows", rows)]);
        values.push(("factor", factor.into()));
        let views = [("partials", partials), ("facts", self.facts), ("x", self.view("q")), ("slopes", slopes)];
        let flops = product([2, kernels::ROWS, head_dim, splits.max(1)]);
        plan.dispatch(&kernels::slopes(self.problem), rows.div_ceil(kernels::ROWS).into(), flops, &values, &views)
    }

    fn sum_slopes(&self, plan: &mut PlanBuilder<'_>, slopes: View) -> Result<()> {
        let AttentionBackwardShapes { batch, q_heads, q_len, head_dim, dscale, .. } = self.shapes;
        let (whole, (gradient, own)) = ([batch, q_heads, q_len], self.of_scales());
        if !dscale && own == whole {
            return Ok(());
        }
        let terms = self.config.scale.slope(head_dim);
        if terms.log_n && self.rows > 0 {
            self.write_scales(plan, terms, false)?;
        }
        let [sum_batches, sum_heads, sum_rows] =
            std::array::from_fn(|axis| if own[axis] == whole[axis] && own[axis] != 1 { 1 } else { whole[axis] });
        let count = product([sum_batches, sum_heads, sum_rows]) as u32;
        let mut numbers = vec![
            ("own_heads", own[1].max(1)),
            ("own_rows", own[2].max(1)),
            ("count", count),
            ("sum_heads", sum_heads.max(1)),
            ("sum_rows", sum_rows.max(1)),
        ];
        numbers.extend(match dscale {
            true => ["sums_batch", "sums_head", "sums_row"].map(|name| (name, 0)).to_vec(),
            false => vec![("sums_stride", 0)],
        });
        let views = [("slopes", slopes), ("facts", self.facts), ("sums", gradient)];
        plan.expect_loops("gradients of scales", u64::from(count / 256) + 16)?;
        plan.dispatch(&kernels::sums(terms.log_n), product(own), count.into(), &self.values(&numbers), &views)
    }

    fn tell(&self, what: &str, tiles: Tiles, walked: &str, (splits, length): (u32, u32)) -> String {
        let ranges = match splits {
            0 => "none to walk".into(),
            1 => format!("all {walked} in one range"),
            _ => format!("{length} {walked} in {splits} ranges, then combined"),
        };
        let products = match (tiles.matrices, self.tier) {
            (Some(tile), _) => format!(" {}", tile.tier),
            (None, Some(_)) if what == "bias" => " in f32".into(),
            (None, Some(_)) => " in f32, as those by matrices find no room in workgroup memory".into(),
            (None, None) => String::new(),
        };
        format!("{what}: tiles of {} by {}{products}, {ranges}", tiles.rows(), tiles.keys())
    }
}
