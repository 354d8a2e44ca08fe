//! Runs a kernel's listing for one wave of 64 lanes, or 32, as far as its way depends on it: integers, conditions and which lanes are
//! active, from the numbers of the lanes and of the uniform. All else, as what buffers and workgroup memory hold and whatever floats
//! come to, is not known.
//!
//! So a loop runs as often as on the hardware, and lanes that do not take part skip what they skip there. Where a branch depends
//! on something that is not known, it is taken where it leads forward: that leaves out what an `if` without an `else` holds, as what a kernel does
//! rarely stands in one, and leaves a loop. Where a lane depends on it, the lane goes in.

use anyhow::{Result, bail};

use super::listing::{EXEC, Instruction, Listing, Operand, VCC};

const LANES: usize = 64;
/// Instructions after which a run ends; a step of the largest has 12 000.
const MOST: usize = 1 << 20;
/// What stands in the place of a descriptor: where it lies in the set.
const DESCRIPTOR: u32 = 0xDE5C_0000;

/// Numbers of 64 lanes, and which of them are known.
#[derive(Clone, Copy)]
struct Vector {
    lanes: [u32; LANES],
    known: u64,
}

/// 32 bits, and which of them are known.
#[derive(Clone, Copy)]
struct Scalar {
    bits: u32,
    known: u32,
}

impl Scalar {
    const UNKNOWN: Self = Self { bits: 0, known: 0 };

    fn of(bits: u32) -> Self {
        Self { bits, known: u32::MAX }
    }

    fn number(self) -> Option<u32> {
        (self.known == u32::MAX).then_some(self.bits)
    }
}

pub struct Wave<'a> {
    listing: &'a Listing,
    /// The uniform, which is the first of the set.
    params: &'a [u32],
    /// Whether it has 64 lanes, so that masks of lanes take two registers.
    wide: bool,
    v: Vec<Vector>,
    s: [Scalar; 128],
    scc: Option<bool>,
    /// Whether a lane's activity was taken for granted.
    assumed: bool,
    /// A scalar instruction that is not known here, though what it reads is.
    stranger: Option<String>,
}

impl<'a> Wave<'a> {
    /// The blocks that the wave of this number walks through, in order.
    pub fn walk(listing: &'a Listing, params: &'a [u32], number: u32, subgroup: u32) -> Result<Vec<usize>> {
        let unknown = Vector { lanes: [0; LANES], known: 0 };
        let (v, s, wide) = (vec![unknown; 512], [Scalar::of(0); 128], subgroup == 64);
        let mut wave = Self { listing, params, wide, v, s, scc: None, assumed: false, stranger: None };
        // Of the first registers, scalar ones hold the set's address and the workgroup's number: it is 0, since the uniform says
        // which the first is. Vector ones hold the invocation's number, in one dimension.
        let lanes = std::array::from_fn(|lane| number * subgroup + lane as u32);
        wave.v[0] = Vector { lanes, known: u64::MAX };
        wave.set_mask(EXEC, u64::MAX, u64::MAX);
        let (mut block, mut way, mut run) = (0, Vec::new(), 0);
        while block < listing.blocks.len() && run < MOST {
            way.push(block);
            run += listing.blocks[block].len();
            let mut next = block + 1;
            for instruction in &listing.blocks[block] {
                if instruction.name == "s_endpgm" {
                    return Ok(way);
                }
                if instruction.is_branch() {
                    next = wave.branch(instruction, block);
                } else {
                    wave.step(instruction);
                }
            }
            if let Some(name) = wave.stranger {
                bail!("the walk does not know {name}");
            }
            block = next;
        }
        Ok(way)
    }

    fn branch(&self, instruction: &Instruction, block: usize) -> usize {
        let Some(target) = self.listing.targets[block] else { return block + 1 };
        let zero = |at: usize| {
            let (bits, known) = self.mask(at);
            if bits & known != 0 { Some(false) } else { (known == u64::MAX).then_some(true) }
        };
        let leaves = self.listing.loops.iter().any(|own| own.contains(&block) && !own.contains(&target));
        let exec_zero = if self.assumed && leaves { None } else { zero(EXEC) };
        let taken = match instruction.name.as_str() {
            "s_branch" => Some(true),
            "s_cbranch_scc0" => self.scc.map(|scc| !scc),
            "s_cbranch_scc1" => self.scc,
            "s_cbranch_vccz" => zero(VCC),
            "s_cbranch_vccnz" => zero(VCC).map(|zero| !zero),
            "s_cbranch_execz" => exec_zero,
            "s_cbranch_execnz" => exec_zero.map(|zero| !zero),
            _ => None,
        };
        if taken.unwrap_or(target > block) { target } else { block + 1 }
    }

    fn scalar(&self, operand: Operand) -> Scalar {
        match operand {
            Operand::S(at) => self.s.get(at).copied().unwrap_or(Scalar::UNKNOWN),
            Operand::Number(number) => Scalar::of(number),
            Operand::Scc => self.scc.map_or(Scalar::UNKNOWN, |scc| Scalar::of(scc.into())),
            _ => Scalar::UNKNOWN,
        }
    }

    /// The upper half of 64 bits.
    fn upper(&self, operand: Operand) -> Scalar {
        match operand {
            Operand::S(at) => self.scalar(Operand::S(at + 1)),
            Operand::Number(number) => Scalar::of(if number.cast_signed() < 0 { u32::MAX } else { 0 }),
            _ => Scalar::UNKNOWN,
        }
    }

    fn vector(&self, operand: Operand) -> Vector {
        match operand {
            Operand::V(at) => self.v[at],
            other => {
                let scalar = self.scalar(other);
                Vector { lanes: [scalar.bits; LANES], known: scalar.number().map_or(0, |_| u64::MAX) }
            }
        }
    }

    /// Of every lane a bit, and whether it is known.
    fn mask(&self, at: usize) -> (u64, u64) {
        let [low, high] = [self.s[at], if self.wide { self.s[at + 1] } else { Scalar::of(0) }];
        let both = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        (both(low.bits, high.bits), both(low.known, high.known))
    }

    fn set_scalar(&mut self, at: usize, value: Scalar) {
        let Some(own) = self.s.get_mut(at) else { return };
        *own = value;
        if at == EXEC || at == EXEC + 1 {
            // A lane of which nothing is known is active.
            *own = Scalar::of(value.bits & value.known | !value.known);
            self.assumed = value.known != u32::MAX || at == EXEC + 1 && self.assumed;
        }
    }

    fn set_mask(&mut self, at: usize, bits: u64, known: u64) {
        self.set_scalar(at, Scalar { bits: bits as u32, known: known as u32 });
        if self.wide {
            self.set_scalar(at + 1, Scalar { bits: (bits >> 32) as u32, known: (known >> 32) as u32 });
        }
    }

    /// Writes the active lanes.
    fn set_vector(&mut self, at: usize, value: &Vector) {
        let active = self.mask(EXEC).0;
        let own = &mut self.v[at];
        own.known = own.known & !active | value.known & active;
        for lane in (0..LANES).filter(|lane| active >> lane & 1 == 1) {
            own.lanes[lane] = value.lanes[lane];
        }
    }

    fn forget(&mut self, operand: Option<&Operand>, width: usize) {
        match operand {
            Some(&Operand::V(at)) => {
                let active = self.mask(EXEC).0;
                (at..at + width).for_each(|at| self.v[at].known &= !active);
            }
            Some(&Operand::S(at)) => (at..at + width).for_each(|at| self.set_scalar(at, Scalar::UNKNOWN)),
            _ => {}
        }
    }

    fn step(&mut self, own: &Instruction) {
        match own.name.get(..2) {
            Some("s_") => self.step_scalar(own),
            Some("v_") => self.step_vector(own),
            _ => {
                let reads = ["load", "read", "permute", "swizzle", "rtn", "atomic"];
                if reads.iter().any(|word| own.name.contains(word)) {
                    self.forget(own.operands.first(), own.width);
                }
            }
        }
    }

    fn step_scalar(&mut self, own: &Instruction) {
        let name = own.name.as_str();
        let operand = |place: usize| own.operands.get(place).copied().unwrap_or(Operand::Other);
        if let Some(comparison) = name.strip_prefix("s_cmp_").or_else(|| name.strip_prefix("s_cmpk_")) {
            let [a, b] = [0, 1].map(|place| self.scalar(operand(place)).number());
            self.scc = a.zip(b).and_then(|(a, b)| compare(comparison, a, b));
            return;
        }
        if let Some(set) = name.strip_prefix("s_bitcmp") {
            let (word, bit) = (self.scalar(operand(0)), self.scalar(operand(1)).number().unwrap_or(0) & 31);
            self.scc = (word.known >> bit & 1 == 1).then(|| (word.bits >> bit & 1 == 1) == set.starts_with('1'));
            return;
        }
        let Operand::S(to) = operand(0) else { return };
        if name.starts_with("s_buffer_load") || name.starts_with("s_load") {
            self.load(own, to);
            return;
        }
        if let Some(operation) =
            name.strip_suffix("_b64").unwrap_or(name.trim_end_matches("_b32")).strip_suffix("_saveexec")
        {
            let saved = self.mask(EXEC);
            self.logic(operation, EXEC, operand(1), Operand::S(EXEC), if self.wide { 2 } else { 1 });
            self.set_mask(to, saved.0, saved.1);
            return;
        }
        if name == "s_bfm_b64" {
            let [bits, from] = [1, 2].map(|place| self.scalar(operand(place)).number());
            let mask = bits.zip(from).map(|(bits, from)| ((1_u64 << (bits & 63)) - 1) << (from & 63));
            return self.set_mask(to, mask.unwrap_or(0), mask.map_or(0, |_| u64::MAX));
        }
        let wide = name.ends_with("_b64");
        let stem = name.trim_end_matches("_b64").trim_end_matches("_b32");
        match stem {
            "s_mov" if wide => {
                let [low, high] = [self.scalar(operand(1)), self.upper(operand(1))];
                self.set_scalar(to, low);
                self.set_scalar(to + 1, high);
                return;
            }
            "s_mov" => return self.set_scalar(to, self.scalar(operand(1))),
            "s_cselect" => {
                let chosen = self.scc.map(|scc| operand(if scc { 1 } else { 2 }));
                self.set_scalar(to, chosen.map_or(Scalar::UNKNOWN, |chosen| self.scalar(chosen)));
                if wide {
                    self.set_scalar(to + 1, chosen.map_or(Scalar::UNKNOWN, |chosen| self.upper(chosen)));
                }
                return;
            }
            "s_and" | "s_or" | "s_xor" | "s_andn2" | "s_and_not1" | "s_orn2" | "s_or_not1" | "s_nand" | "s_nor"
            | "s_xnor" | "s_not" => return self.logic(stem, to, operand(1), operand(2), if wide { 2 } else { 1 }),
            _ => {}
        }
        let before = self.scc;
        let [a, b] = [1, 2].map(|place| self.scalar(operand(place)).number());
        // With one operand, or with what was there.
        let [a, b] = match name {
            "s_mulk_i32" | "s_addk_i32" => [self.scalar(operand(0)).number(), a],
            "s_movk_i32" | "s_abs_i32" | "s_brev_b32" | "s_bcnt1_i32_b32" | "s_ff1_i32_b32" | "s_sext_i32_i16" => {
                [a, Some(0)]
            }
            _ => [a, b],
        };
        // The workgroup's number, 0, times the width of a grid, which no uniform tells.
        let [a, b] = if name == "s_mul_i32" && [a, b].contains(&Some(0)) { [Some(0); 2] } else { [a, b] };
        let result = a.zip(b).and_then(|(a, b)| scalar_result(name, a, b, before));
        if sets_scc(name) {
            self.scc = result.and_then(|(_, scc)| scc);
        }
        match result {
            Some((bits, _)) => self.set_scalar(to, Scalar::of(bits)),
            None if a.is_some() && b.is_some() => self.stranger = Some(own.name.clone()),
            None => self.forget(Some(&operand(0)), own.width),
        }
    }

    /// A bitwise operation on one or two words.
    fn logic(&mut self, stem: &str, to: usize, a: Operand, b: Operand, words: usize) {
        let mut results = [Scalar::of(0); 2];
        for (word, result) in results.iter_mut().enumerate().take(words) {
            let read = |operand| if word == 0 { self.scalar(operand) } else { self.upper(operand) };
            let (a, b) = (read(a), if stem == "s_not" { Scalar::of(u32::MAX) } else { read(b) });
            let not = |x: Scalar| Scalar { bits: !x.bits, ..x };
            let and = |a: Scalar, b: Scalar| Scalar {
                bits: a.bits & b.bits,
                known: a.known & b.known | a.known & !a.bits | b.known & !b.bits,
            };
            let or = |a: Scalar, b: Scalar| not(and(not(a), not(b)));
            let xor = |a: Scalar, b: Scalar| Scalar { bits: a.bits ^ b.bits, known: a.known & b.known };
            *result = match stem {
                "s_and" => and(a, b),
                "s_or" => or(a, b),
                "s_andn2" | "s_and_not1" => and(a, not(b)),
                "s_orn2" | "s_or_not1" => or(a, not(b)),
                "s_nand" => not(and(a, b)),
                "s_nor" => not(or(a, b)),
                "s_xnor" => not(xor(a, b)),
                _ => xor(a, b),
            };
        }
        (0..words).for_each(|word| self.set_scalar(to + word, results[word]));
        let set = results.iter().any(|word| word.bits & word.known != 0);
        let unset = results.iter().all(|word| word.known == u32::MAX && word.bits == 0);
        self.scc = if set { Some(true) } else { unset.then_some(false) };
    }

    /// Descriptors out of the set, which are told by their places, and what the first of them, the uniform, holds.
    fn load(&mut self, own: &Instruction, to: usize) {
        let offset = match own.operands.get(2) {
            Some(Operand::Number(offset)) if own.modifiers.is_empty() => Some(*offset),
            _ => None,
        };
        let base = match own.operands.get(1) {
            Some(&Operand::S(at)) => self.s[at].number(),
            _ => None,
        };
        let from_params = own.name.starts_with("s_buffer") && base == Some(DESCRIPTOR);
        for word in 0..own.width {
            let value = match offset {
                Some(offset) if from_params => {
                    self.params.get(offset as usize / 4 + word).map(|bits| Scalar::of(*bits))
                }
                Some(offset) if own.name.starts_with("s_load") && own.width >= 4 => {
                    Some(Scalar::of(DESCRIPTOR + offset + 4 * word as u32))
                }
                _ => None,
            };
            self.set_scalar(to + word, value.unwrap_or(Scalar::UNKNOWN));
        }
    }

    fn step_vector(&mut self, own: &Instruction) {
        let name = own.name.trim_end_matches("_sdwa");
        let operand = |place: usize| own.operands.get(place).copied().unwrap_or(Operand::Other);
        if let Some(comparison) = name.strip_prefix("v_cmpx_") {
            // Newer families name no register for the result.
            let first = usize::from(own.operands.len() > 2);
            let (bits, known) = self.compared(comparison, self.vector(operand(first)), self.vector(operand(first + 1)));
            self.set_mask(EXEC, bits, known);
            return;
        }
        if let (Some(comparison), Operand::S(to)) = (name.strip_prefix("v_cmp_"), operand(0)) {
            let [a, b] = [1, 2].map(|place| self.read(own, place));
            let (bits, known) = self.compared(comparison, a, b);
            self.set_mask(to, bits, known);
            return;
        }
        match (name, operand(0), operand(1)) {
            ("v_readfirstlane_b32", Operand::S(to), Operand::V(from)) => {
                let lane = (self.mask(EXEC).0.trailing_zeros() as usize).min(LANES - 1);
                let known = self.v[from].known >> lane & 1 == 1;
                let value = if known { Scalar::of(self.v[from].lanes[lane]) } else { Scalar::UNKNOWN };
                return self.set_scalar(to, value);
            }
            ("v_readlane_b32", Operand::S(to), Operand::V(from)) => {
                let lane = self.scalar(operand(2)).number().filter(|lane| self.v[from].known >> (lane & 63) & 1 == 1);
                let value = lane.map(|lane| Scalar::of(self.v[from].lanes[lane as usize & 63]));
                return self.set_scalar(to, value.unwrap_or(Scalar::UNKNOWN));
            }
            ("v_swap_b32", Operand::V(a), Operand::V(b)) => {
                let [own_a, own_b] = [self.v[a], self.v[b]];
                self.set_vector(a, &own_b);
                return self.set_vector(b, &own_a);
            }
            ("v_cndmask_b32", Operand::V(to), _) => {
                let [mut a, b] = [1, 2].map(|place| self.vector(operand(place)));
                let (bits, known) = if let Operand::S(at) = operand(3) { self.mask(at) } else { (0, 0) };
                a.known = known & (bits & b.known | !bits & a.known);
                (0..LANES).filter(|lane| bits >> lane & 1 == 1).for_each(|lane| a.lanes[lane] = b.lanes[lane]);
                return self.set_vector(to, &a);
            }
            ("v_mbcnt_lo_u32_b32" | "v_mbcnt_hi_u32_b32", Operand::V(to), Operand::Number(u32::MAX)) => {
                let mut sum = self.vector(operand(2));
                for (lane, own) in sum.lanes.iter_mut().enumerate() {
                    let below = if name.contains("lo") { lane.min(32) } else { lane.saturating_sub(32) };
                    *own = own.wrapping_add(below as u32);
                }
                return self.set_vector(to, &sum);
            }
            _ => {}
        }
        let plain = own.modifiers.is_empty() || own.name.ends_with("_sdwa") && own.modifiers.contains("dst_sel:DWORD");
        if let (Some(function), Operand::V(to), true) = (vector_result(name), operand(0), plain) {
            let [mut a, b, c] = [1, 2, 3].map(|place| self.read(own, place));
            a.known &= b.known & c.known;
            if a.known != 0 {
                (0..LANES).for_each(|lane| a.lanes[lane] = function(a.lanes[lane], b.lanes[lane], c.lanes[lane]));
            }
            return self.set_vector(to, &a);
        }
        self.forget(own.operands.first(), own.width);
        // Those that also write a carry.
        if name.contains("_co_") || name.starts_with("v_mad_u64") || name.starts_with("v_div_scale") {
            self.forget(own.operands.get(1), 2);
        }
    }

    /// An operand, or the part of it that is selected; where there is none, zero.
    fn read(&self, own: &Instruction, place: usize) -> Vector {
        let mut value =
            own.operands.get(place).map_or(Vector { lanes: [0; LANES], known: u64::MAX }, |&o| self.vector(o));
        let selected = own.modifiers.split(&format!("src{}_sel:", place - 1)).nth(1);
        let select = |from: u32, bits: u32| move |x: &mut u32| *x = *x >> from & (u32::MAX >> (32 - bits));
        match selected.and_then(|rest| rest.split_whitespace().next()) {
            Some("WORD_0") => value.lanes.iter_mut().for_each(select(0, 16)),
            Some("WORD_1") => value.lanes.iter_mut().for_each(select(16, 16)),
            Some("DWORD") | None => {}
            Some(_) => value.known = 0,
        }
        value
    }

    /// Which active lanes a comparison holds for, and of which that is known.
    fn compared(&self, comparison: &str, a: Vector, b: Vector) -> (u64, u64) {
        let active = self.mask(EXEC).0;
        let (mut bits, mut known) = (0, !active);
        for lane in (0..LANES).filter(|lane| (active & a.known & b.known) >> lane & 1 == 1) {
            if let Some(holds) = compare(comparison, a.lanes[lane], b.lanes[lane]) {
                bits |= u64::from(holds) << lane;
                known |= 1 << lane;
            }
        }
        (bits, known)
    }
}

/// `lt_u32` and the like; of floats nothing.
fn compare(comparison: &str, a: u32, b: u32) -> Option<bool> {
    let (relation, kind) = comparison.split_once('_')?;
    let order = match kind {
        "u32" => a.cmp(&b),
        "i32" => a.cast_signed().cmp(&b.cast_signed()),
        _ => return None,
    };
    Some(match relation {
        "lt" => order.is_lt(),
        "le" => order.is_le(),
        "gt" => order.is_gt(),
        "ge" => order.is_ge(),
        "eq" => order.is_eq(),
        "lg" | "ne" => order.is_ne(),
        _ => return None,
    })
}

fn sets_scc(name: &str) -> bool {
    let silent = ["s_mul", "s_movk", "s_bfm", "s_brev", "s_pack", "s_sext", "s_getreg", "s_cmov", "s_ff1"];
    !silent.iter().any(|start| name.starts_with(start))
}

/// What a scalar instruction gives, and what scc becomes.
fn scalar_result(name: &str, a: u32, b: u32, scc: Option<bool>) -> Option<(u32, Option<bool>)> {
    let (low, high) = (a & 0xFFFF, a >> 16);
    let carried = |(result, carry): (u32, bool)| (result, Some(carry));
    let shifted =
        |by: u32| carried(((a << by).wrapping_add(b), (u64::from(a) << by) + u64::from(b) > u64::from(u32::MAX)));
    let nonzero = |result: u32| (result, Some(result != 0));
    let kept = |result: u32| (result, scc);
    let picked = |first: bool| (if first { a } else { b }, Some(first));
    let [signed_a, signed_b] = [a.cast_signed(), b.cast_signed()];
    Some(match name {
        "s_add_u32" => carried(a.overflowing_add(b)),
        "s_addc_u32" => {
            let sum = u64::from(a) + u64::from(b) + u64::from(scc?);
            (sum as u32, Some(sum >> 32 != 0))
        }
        "s_add_i32" | "s_addk_i32" => (a.wrapping_add(sign_extended(name, b)), None),
        "s_sub_u32" => carried(a.overflowing_sub(b)),
        "s_sub_i32" => (a.wrapping_sub(b), None),
        "s_mul_i32" => kept(a.wrapping_mul(b)),
        "s_mulk_i32" => kept(a.wrapping_mul(sign_extended(name, b))),
        "s_mul_hi_u32" => kept(((u64::from(a) * u64::from(b)) >> 32) as u32),
        "s_mul_hi_i32" => kept(((i64::from(signed_a) * i64::from(signed_b)) >> 32) as u32),
        "s_movk_i32" => kept(sign_extended(name, a)),
        "s_lshl_b32" => nonzero(a << (b & 31)),
        "s_lshr_b32" => nonzero(a >> (b & 31)),
        "s_ashr_i32" => nonzero((signed_a >> (b & 31)).cast_unsigned()),
        "s_lshl1_add_u32" => shifted(1),
        "s_lshl2_add_u32" => shifted(2),
        "s_lshl3_add_u32" => shifted(3),
        "s_lshl4_add_u32" => shifted(4),
        "s_min_u32" => picked(a < b),
        "s_max_u32" => picked(a > b),
        "s_min_i32" => picked(signed_a < signed_b),
        "s_max_i32" => picked(signed_a > signed_b),
        "s_abs_i32" => nonzero(signed_a.unsigned_abs()),
        "s_bfe_u32" => nonzero(field(a, b & 31, b >> 16 & 127)),
        "s_bfm_b32" => kept(((1_u64 << (a & 31)) as u32).wrapping_sub(1) << (b & 31)),
        "s_brev_b32" => kept(a.reverse_bits()),
        "s_bcnt1_i32_b32" => nonzero(a.count_ones()),
        "s_sext_i32_i16" => kept(i32::from(low as i16).cast_unsigned()),
        "s_pack_ll_b32_b16" => kept(low | b << 16),
        "s_pack_lh_b32_b16" => kept(low | b & 0xFFFF_0000),
        "s_pack_hh_b32_b16" => kept(high | b & 0xFFFF_0000),
        _ => return None,
    })
}

/// A number of 16 bits where the instruction holds one.
fn sign_extended(name: &str, number: u32) -> u32 {
    if name.contains("k_") { i32::from(number as u16 as i16).cast_unsigned() } else { number }
}

fn field(word: u32, from: u32, bits: u32) -> u32 {
    let shifted = word >> (from & 31);
    if bits >= 32 { shifted } else { shifted & ((1 << bits) - 1) }
}

/// What a vector instruction does in a lane, if it is one that addresses and conditions are made by.
fn vector_result(name: &str) -> Option<fn(u32, u32, u32) -> u32> {
    fn signed(x: u32) -> i32 {
        x.cast_signed()
    }
    Some(match name {
        "v_mov_b32" => |a, _, _| a,
        "v_not_b32" => |a, _, _| !a,
        "v_add_nc_u32" | "v_add_u32" => |a, b, _| a.wrapping_add(b),
        "v_sub_nc_u32" | "v_sub_u32" => |a, b, _| a.wrapping_sub(b),
        "v_subrev_nc_u32" | "v_subrev_u32" => |a, b, _| b.wrapping_sub(a),
        "v_add3_u32" => |a, b, c| a.wrapping_add(b).wrapping_add(c),
        "v_mul_lo_u32" => |a, b, _| a.wrapping_mul(b),
        "v_mul_hi_u32" => |a, b, _| ((u64::from(a) * u64::from(b)) >> 32) as u32,
        "v_mul_hi_i32" => |a, b, _| ((i64::from(signed(a)) * i64::from(signed(b))) >> 32) as u32,
        "v_mul_u32_u24" => |a, b, _| (a & 0xFF_FFFF).wrapping_mul(b & 0xFF_FFFF),
        "v_mad_u32_u24" => |a, b, c| (a & 0xFF_FFFF).wrapping_mul(b & 0xFF_FFFF).wrapping_add(c),
        "v_mad_u32_u16" => |a, b, c| (a & 0xFFFF).wrapping_mul(b & 0xFFFF).wrapping_add(c),
        "v_lshlrev_b32" => |a, b, _| b << (a & 31),
        "v_lshrrev_b32" => |a, b, _| b >> (a & 31),
        "v_ashrrev_i32" => |a, b, _| (signed(b) >> (a & 31)).cast_unsigned(),
        "v_lshl_add_u32" => |a, b, c| (a << (b & 31)).wrapping_add(c),
        "v_add_lshl_u32" => |a, b, c| a.wrapping_add(b) << (c & 31),
        "v_lshl_or_b32" => |a, b, c| a << (b & 31) | c,
        "v_and_b32" => |a, b, _| a & b,
        "v_or_b32" => |a, b, _| a | b,
        "v_xor_b32" => |a, b, _| a ^ b,
        "v_and_or_b32" => |a, b, c| a & b | c,
        "v_or3_b32" => |a, b, c| a | b | c,
        "v_xor3_b32" => |a, b, c| a ^ b ^ c,
        "v_xad_u32" => |a, b, c| (a ^ b).wrapping_add(c),
        "v_bfe_u32" => |a, b, c| field(a, b, c & 31),
        "v_bfi_b32" => |a, b, c| a & b | !a & c,
        "v_bfrev_b32" => |a, _, _| a.reverse_bits(),
        "v_cvt_u32_u16" => |a, _, _| a & 0xFFFF,
        "v_min_u32" => |a, b, _| a.min(b),
        "v_max_u32" => |a, b, _| a.max(b),
        "v_min_i32" => |a, b, _| signed(a).min(signed(b)).cast_unsigned(),
        "v_max_i32" => |a, b, _| signed(a).max(signed(b)).cast_unsigned(),
        "v_maxmin_i32" => |a, b, c| signed(a).max(signed(b)).min(signed(c)).cast_unsigned(),
        "v_minmax_i32" => |a, b, c| signed(a).min(signed(b)).max(signed(c)).cast_unsigned(),
        "v_maxmin_u32" => |a, b, c| a.max(b).min(c),
        "v_minmax_u32" => |a, b, c| a.min(b).max(c),
        "v_med3_i32" => |a, b, c| {
            let [a, b, c] = [a, b, c].map(signed);
            a.min(b).max(a.max(b).min(c)).cast_unsigned()
        },
        "v_med3_u32" => |a, b, c| a.min(b).max(a.max(b).min(c)),
        // Divisions by numbers of the uniform go through these.
        "v_cvt_f32_u32" => |a, _, _| (a as f32).to_bits(),
        "v_cvt_u32_f32" => |a, _, _| f32::from_bits(a) as u32,
        "v_rcp_f32" | "v_rcp_iflag_f32" => |a, _, _| (1.0 / f32::from_bits(a)).to_bits(),
        "v_mul_f32" => |a, b, _| (f32::from_bits(a) * f32::from_bits(b)).to_bits(),
        _ => return None,
    })
}
