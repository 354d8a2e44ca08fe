//! What a wave runs in one step of a kernel's loop: the mean over the waves of a workgroup.

use std::ops::{Add, RangeInclusive};

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
        }
    }
}

impl Counts {
    fn of(listing: &Listing, block: usize) -> Self {
        listing.blocks[block].iter().fold(Self::default(), |counts, instruction| {
            let kind = instruction.kind;
            let one = |holds| u32::from(holds);
            counts
                + Self {
                    all: 1,
                    vector: one(matches!(kind, Kind::Vector | Kind::MultiplyAdd)),
                    multiply_adds: one(kind == Kind::MultiplyAdd),
                    matrices: one(kind == Kind::Matrix),
                    lds: one(kind == Kind::Lds),
                }
        })
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
    /// The steps are the turns of the loop that is run three times or more and holds the most multiply-adds, a quarter of all
    /// at least; the outermost, where it holds others. Half of these turns are as cheap as a whole step, or cheaper. An edge is the
    /// dearest turn of it, or of a loop beside it, with at least half as many multiply-adds: where edges have a loop of their own,
    /// or, as in linear attention, the state and a tile's own keys have one each. A kernel without such a loop is one step.
    pub fn of(listing: &Listing, params: &[u32], invocations: u32, subgroup: u32) -> Self {
        let waves = invocations.div_ceil(subgroup);
        let ways: Vec<_> = (0..waves).map(|wave| Wave::walk(listing, params, wave, subgroup)).collect();
        let blocks: Vec<_> = (0..listing.blocks.len()).map(|block| Counts::of(listing, block)).collect();
        let sum = |turns: &[Counts]| turns.iter().fold(Counts::default(), |a, &b| a + b);
        let all = sum(&ways.concat().iter().map(|&block| blocks[block]).collect::<Vec<_>>());

        let found: Vec<_> = listing.loops.iter().map(|own| (own, turns(own, &ways, &blocks))).collect();
        let repeated = found.iter().filter(|(_, turns)| turns.len() >= 3);
        // Of equals the last: outer ones come first.
        let main = repeated.rev().max_by_key(|(_, turns)| sum(turns).products());
        let main = main.filter(|(_, turns)| 4 * sum(turns).products() > all.products());
        let Some((main, main_turns)) = main else { return Self { waves, whole: all, edge: None } };
        let mut by_cost = main_turns.clone();
        by_cost.sort_by_key(|turn| turn.all);
        let whole = by_cost[(by_cost.len() - 1) / 2];

        // Not around it and not inside.
        let apart = |own: &RangeInclusive<usize>| own.end() < main.start() || own.start() > main.end();
        let beside = found.iter().filter(|(own, _)| apart(own)).flat_map(|(_, turns)| turns);
        let is_step = |turn: &&Counts| 2 * turn.products() >= whole.products();
        let edge = main_turns.iter().chain(beside).filter(is_step).max_by_key(|turn| turn.all);
        let edge = edge.copied().filter(|edge| edge.all > whole.all + whole.all / 50);
        Self { waves, whole, edge }
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
