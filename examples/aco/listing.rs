//! ACO's listing of a kernel: instructions, the blocks that they stand in, and the loops of those.

use std::collections::HashMap;
use std::ops::RangeInclusive;

/// What an instruction reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// Vector registers from this one on.
    V(usize),
    /// Scalar registers from this one on.
    S(usize),
    Scc,
    /// A number; of a float, its bits.
    Number(u32),
    /// What no figure depends on.
    Other,
}

/// Places of scalar registers with names.
pub const VCC: usize = 106;
pub const M0: usize = 124;
pub const EXEC: usize = 126;

/// What it counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A product and a sum in one.
    MultiplyAdd,
    /// A product of cooperative matrices.
    Matrix,
    /// Any other that every lane runs.
    Vector,
    /// To or from workgroup memory, or between lanes by its wires.
    Lds,
    Other,
}

impl Kind {
    fn of(name: &str) -> Self {
        let is = |starts: &[&str]| starts.iter().any(|start| name.starts_with(start));
        match name {
            _ if is(&["v_wmma", "v_mfma"]) => Self::Matrix,
            _ if is(&["v_fma", "v_mac_f", "v_mad_f", "v_madak", "v_madmk", "v_pk_fma", "v_dot2"]) => Self::MultiplyAdd,
            _ if is(&["v_"]) => Self::Vector,
            _ if is(&["ds_"]) => Self::Lds,
            _ => Self::Other,
        }
    }
}

pub struct Instruction {
    /// Without the suffix of its encoding.
    pub name: String,
    pub kind: Kind,
    pub operands: Vec<Operand>,
    /// How many registers the first operand names.
    pub width: usize,
    /// What else says how operands are read.
    pub modifiers: String,
}

/// A kernel's blocks in order. The last instruction of one may go to another.
#[derive(Default)]
pub struct Listing {
    pub blocks: Vec<Vec<Instruction>>,
    /// Where each block's last instruction may go.
    pub targets: Vec<Option<usize>>,
    /// Loops, as ACO lays them out: from the block that is branched back to, to the last that branches there. Outer ones come first.
    pub loops: Vec<RangeInclusive<usize>>,
}

impl Listing {
    pub fn new(text: &str) -> Self {
        let (mut blocks, mut labels) = (vec![Vec::<Instruction>::new()], HashMap::new());
        for line in text.lines() {
            let code = line.split(';').next().unwrap_or_default().trim().trim_end_matches('\0');
            if let Some(label) = code.strip_suffix(':') {
                labels.insert(label, blocks.len());
                blocks.push(Vec::new());
            } else if code.starts_with(|c: char| c.is_ascii_lowercase()) {
                // Where waves have 32 lanes, one may be two.
                let block = blocks.last_mut().expect("one at least");
                block.extend(code.split("::").map(|code| Instruction::new(&code.replace("v_dual_", "v_"))));
                if block.last().is_some_and(Instruction::is_branch) {
                    blocks.push(Vec::new());
                }
            }
        }
        let target = |block: &Vec<Instruction>| {
            let branch = block.last().filter(|last| last.is_branch())?;
            labels.get(branch.modifiers.as_str()).copied()
        };
        let targets: Vec<_> = blocks.iter().map(target).collect();
        let mut ends: HashMap<usize, usize> = HashMap::new();
        for (block, target) in targets.iter().enumerate() {
            if let Some(head) = target.filter(|&target| target <= block) {
                ends.insert(head, block);
            }
        }
        let mut loops: Vec<_> = ends.into_iter().map(|(head, end)| head..=end).collect();
        loops.sort_by_key(|own| (std::cmp::Reverse(own.end() - own.start()), *own.start()));
        Self { blocks, targets, loops }
    }
}

impl Instruction {
    pub fn is_branch(&self) -> bool {
        self.name == "s_branch" || self.name.starts_with("s_cbranch")
    }

    fn new(code: &str) -> Self {
        let code = code.trim();
        let (name, rest) = code.split_once(char::is_whitespace).unwrap_or((code, ""));
        let encodings = ["_e32", "_e64", "_e64_dpp"];
        let bare = encodings.iter().find_map(|encoding| name.strip_suffix(encoding)).unwrap_or(name);
        let (mut operands, mut modifiers, mut width) = (Vec::new(), String::new(), 1);
        for (place, text) in rest.split(',').enumerate() {
            let mut words = text.split_whitespace();
            let Some(word) = words.next() else { continue };
            if place == 0 {
                let pair = ["vcc", "exec"].contains(&word);
                width = registers(word).map_or(if pair { 2 } else { 1 }, |(_, width)| width);
            }
            let operand = Operand::new(word);
            if operand == Operand::Other && place == 0 {
                modifiers.push_str(word);
            }
            operands.push(operand);
            words.for_each(|word| modifiers.extend([" ", word]));
        }
        Self { name: bare.to_owned(), kind: Kind::of(name), operands, width, modifiers }
    }
}

/// `v5` and `s[4:7]`: the first register, behind its letter, and how many.
fn registers(word: &str) -> Option<(usize, usize)> {
    let rest = word.strip_prefix(['v', 's'])?;
    match rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(range) => {
            let (first, last) = range.split_once(':')?;
            let [first, last] = [first.parse::<usize>().ok()?, last.parse().ok()?];
            Some((first, last + 1 - first))
        }
        None => Some((rest.parse().ok()?, 1)),
    }
}

impl Operand {
    fn new(word: &str) -> Self {
        if let Some((first, _)) = registers(word) {
            return if word.starts_with('v') { Self::V(first) } else { Self::S(first) };
        }
        match word {
            "vcc" | "vcc_lo" => return Self::S(VCC),
            "vcc_hi" => return Self::S(VCC + 1),
            "exec" | "exec_lo" => return Self::S(EXEC),
            "exec_hi" => return Self::S(EXEC + 1),
            "m0" => return Self::S(M0),
            "scc" | "src_scc" => return Self::Scc,
            "null" => return Self::Number(0),
            _ => {}
        }
        let number = match word.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => word.parse::<i32>().ok().map(i32::cast_unsigned),
        };
        let number = number.or_else(|| word.parse::<f32>().ok().map(f32::to_bits));
        number.map_or(Self::Other, Self::Number)
    }
}
