//! What a wave runs in one step of a kernel's loop: the mean over the waves of a workgroup.

use std::cmp::Reverse;
use std::ops::{Add, RangeInclusive};

use anyhow::Result;

use super::listing::{Kind, Listing};
use super::wave::Wave;

/// Instructions of all the waves of a workgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    pub all: u32,
    /// Vector instructions, multiply-adds too.
    pub vector: u32,
    pub multiply_adds: u32,
    pub matrices: u32,
    pub lds: u32,
    /// Those of blocks that multiply matrices, and of these to and from workgroup memory.
    pub block: u32,
    pub block_lds: u32,
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            all: self.all + other.all,
            vector: self.vector + other.vector,
            multiply_adds: self.multiply_adds + other.multiply_adds,
            matrices: self.matrices + other.matrices,
            lds: self.lds + other.lds,
            block: self.block + other.block,
            block_lds: self.block_lds + other.block_lds,
        }
    }
}

impl Counts {
    fn of(listing: &Listing, block: usize) -> Self {
        let instructions = &listing.blocks[block];
        let count = |kind| instructions.iter().filter(|own| own.kind == kind).count() as u32;
        let [all, multiply_adds, matrices, lds] =
            [instructions.len() as u32, count(Kind::MultiplyAdd), count(Kind::Matrix), count(Kind::Lds)];
        let multiplies = u32::from(matrices > 0);
        Self {
            all,
            vector: count(Kind::Vector) + multiply_adds,
            multiply_adds,
            matrices,
            lds,
            block: multiplies * all,
            block_lds: multiplies * lds,
        }
    }

    /// What a step is there for; a product of matrices counts for as many as it takes the place of.
    fn products(self) -> u32 {
        self.multiply_adds + 64 * self.matrices
    }
}

/// Steps, and the waves that a figure is divided by.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    pub waves: u32,
    pub whole: Counts,
    /// The dearest step, where it is another one.
    pub edge: Option<Counts>,
}

impl Steps {
    /// The steps are the turns of the outermost loop that is run three times or more and holds a quarter of all multiply-adds; of
    /// several, that which holds the most. Half of these turns are as cheap as a whole step, or cheaper. An edge is the
    /// dearest turn of it, or of a loop beside it, with at least half as many multiply-adds: where edges have a loop of their own,
    /// or, as in linear attention, the state and a tile's own keys have one each. A kernel without such a loop is one step.
    pub fn of(listing: &Listing, params: &[u32], invocations: u32, subgroup: u32) -> Result<Self> {
        let waves = invocations.div_ceil(subgroup);
        let ways = (0..waves).map(|wave| Wave::walk(listing, params, wave, subgroup)).collect::<Result<Vec<_>>>()?;
        let blocks: Vec<_> = (0..listing.blocks.len()).map(|block| Counts::of(listing, block)).collect();
        let sum = |turns: &[Counts]| turns.iter().fold(Counts::default(), |a, &b| a + b);
        let all = sum(&ways.concat().iter().map(|&block| blocks[block]).collect::<Vec<_>>());

        let found: Vec<_> = listing.loops.iter().map(|own| (own, turns(own, &ways, &blocks))).collect();
        let depth = |own: &RangeInclusive<usize>| found.iter().filter(|(other, _)| other.contains(own.start())).count();
        let candidates =
            found.iter().filter(|(_, turns)| turns.len() >= 3 && 4 * sum(turns).products() > all.products());
        let main = candidates.min_by_key(|(own, turns)| (depth(own), Reverse(sum(turns).products())));
        let Some((main, main_turns)) = main else { return Ok(Self { waves, whole: all, edge: None }) };
        let mut by_cost = main_turns.clone();
        by_cost.sort_by_key(|turn| turn.all);
        let whole = by_cost[(by_cost.len() - 1) / 2];

        // Not around it and not inside.
        let apart = |own: &RangeInclusive<usize>| own.end() < main.start() || own.start() > main.end();
        let beside = found.iter().filter(|(own, _)| apart(own)).flat_map(|(_, turns)| turns);
        let is_step = |turn: &&Counts| 2 * turn.products() >= whole.products();
        let edge = main_turns.iter().chain(beside).filter(is_step).max_by_key(|turn| turn.all);
        let edge = edge.copied().filter(|edge| edge.all > whole.all + whole.all / 50);
        Ok(Self { waves, whole, edge })
    }
}

/// What each turn of a loop runs, of all waves together, which turn as often.
fn turns(own: &RangeInclusive<usize>, ways: &[Vec<usize>], blocks: &[Counts]) -> Vec<Counts> {
    let mut sums: Vec<Counts> = Vec::new();
    for way in ways {
        let (mut turn, mut inside) = (0, false);
        for block in way {
            if block == own.start() {
                turn += 1;
                inside = true;
            }
            inside &= own.contains(block);
            if inside {
                if sums.len() < turn {
                    sums.push(Counts::default());
                }
                sums[turn - 1] = sums[turn - 1] + blocks[*block];
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two waves. In each of three steps the first brings something, then all lanes multiply four times; the last step is an edge.
    /// The number of steps is the second number of the uniform.
    const LISTING: &str = "
BB0:
	s_load_b128 s[4:7], s[2:3], null ; f4080201
	s_buffer_load_b64 s[8:9], s[4:7], null
	s_mov_b32 s10, 0
	v_cmp_gt_u32_e32 vcc, 64, v0
	s_mov_b64 s[12:13], exec
BB1:
	s_and_b64 exec, s[12:13], vcc
	s_cbranch_execz BB3
BB2:
	buffer_load_b32 v4, v0, s[4:7], 0 offen
	ds_store_b32 v0, v4
BB3:
	s_mov_b64 exec, s[12:13]
	s_mov_b32 s11, 4
BB4:
	v_fma_f32 v1, v2, v3, v1
	s_sub_u32 s11, s11, 1
	s_cmp_lg_u32 s11, 0
	s_cbranch_scc1 BB4
BB5:
	s_add_u32 s10, s10, 1
	s_cmp_eq_u32 s10, s9
	s_cbranch_scc0 BB7
BB6:
	v_max_f32_e32 v1, v1, v2
	v_max_f32_e32 v1, v1, v2
BB7:
	v_cmp_gt_f32_e32 vcc, 0, v1
	s_cbranch_vccz BB9
BB8:
	v_mul_f32_e32 v1, v1, v1
BB9:
	s_ctz_i32_b64 s8, exec
	v_cmp_gt_u32_e32 vcc, 64, v0
	s_cmp_lt_u32 s10, s9
	s_cbranch_scc1 BB1
BB10:
	s_endpgm
";

    #[test]
    fn steps_are_walked_through() {
        let steps = Steps::of(&Listing::new(LISTING), &[1, 3], 128, 64).expect("known instructions");
        // Of each wave 4 around what the first alone brings by 2, 4 turns of 4, and 9 behind them: what depends on numbers is left out.
        let whole = Counts { all: 60, vector: 12, multiply_adds: 8, lds: 1, ..Counts::default() };
        assert_eq!(steps.waves, 2);
        assert_eq!(steps.whole, whole);
        let edge = Counts { all: 64, vector: 16, ..whole };
        assert_eq!(steps.edge, Some(edge));
    }

    #[test]
    fn what_is_not_known_is_told() {
        let listing = LISTING.replace("s_sub_u32", "s_strange_u32");
        let error = Steps::of(&Listing::new(&listing), &[1, 3], 64, 64).expect_err("an unknown instruction");
        assert!(error.to_string().contains("s_strange_u32"), "{error}");
    }
}
