//! What naga adds to a kernel's loops so that no index is out of bounds: a `UMin` for each index of an array that is not a constant.

use std::collections::HashMap;

// SPIR-V's numbers.
const ENTRY_POINT: u32 = 15;
const TYPE_VECTOR: u32 = 23;
const FUNCTION: u32 = 54;
const FUNCTION_CALL: u32 = 57;
const EXTENDED: u32 = 12;
const LOOP_MERGE: u32 = 246;
const LABEL: u32 = 248;
const MULTIPLY: u32 = 133;
const VECTOR_TIMES_SCALAR: u32 = 142;
const MATRIX_MULTIPLY_ADD: u32 = 4459;
const U_MIN: u32 = 38;
const FMA: u32 = 50;

/// In loops, or called from there.
#[derive(Clone, Copy, Default)]
struct InLoops {
    minima: u32,
    multiply_adds: u32,
}

/// What stands in a function: an operation, or a call; and whether a loop is around it.
enum Item {
    Own(InLoops),
    Call(u32),
}

/// Clamps for every 1000 multiply-adds, of the text that wgpu compiles against the same without checks; nothing where there is none
/// to count by. Each instruction counts once, however often it runs, and one of a function wherever that is called in a loop.
pub fn per_thousand(checked: &[u32], unchecked: &[u32]) -> Option<f64> {
    let [checked, unchecked] = [checked, unchecked].map(in_loops);
    let clamps = checked.minima.saturating_sub(unchecked.minima);
    (checked.multiply_adds > 0).then(|| 1000.0 * f64::from(clamps) / f64::from(checked.multiply_adds))
}

fn in_loops(words: &[u32]) -> InLoops {
    let mut functions: Vec<(u32, Vec<(Item, bool)>)> = Vec::new();
    let (mut main, mut components) = (0, HashMap::new());
    // Where the loops end that are open.
    let mut ends: Vec<u32> = Vec::new();
    let mut rest = &words[5..];
    while let [first, ..] = rest {
        let (instruction, behind) = rest.split_at((first >> 16) as usize);
        rest = behind;
        let parts = |ty: u32| components.get(&ty).copied().unwrap_or(1);
        let item = match (first & 0xFFFF, &instruction[1..]) {
            (ENTRY_POINT, &[_, function, ..]) => {
                main = function;
                continue;
            }
            (TYPE_VECTOR, &[ty, _, count]) => {
                components.insert(ty, count);
                continue;
            }
            (FUNCTION, &[_, function, ..]) => {
                functions.push((function, Vec::new()));
                continue;
            }
            (LOOP_MERGE, &[end, ..]) => {
                ends.push(end);
                continue;
            }
            (LABEL, &[label]) => {
                ends.retain(|&end| end != label);
                continue;
            }
            (FUNCTION_CALL, &[_, _, function, ..]) => Item::Call(function),
            (EXTENDED, &[ty, _, _, U_MIN, ..]) => Item::Own(InLoops { minima: parts(ty), multiply_adds: 0 }),
            (EXTENDED, &[ty, _, _, FMA, ..]) | (MULTIPLY | VECTOR_TIMES_SCALAR, &[ty, ..]) => {
                Item::Own(InLoops { minima: 0, multiply_adds: parts(ty) })
            }
            // 16 x 16 x 16 by 64 lanes.
            (MATRIX_MULTIPLY_ADD, _) => Item::Own(InLoops { minima: 0, multiply_adds: 64 }),
            _ => continue,
        };
        if let Some((_, items)) = functions.last_mut() {
            items.push((item, !ends.is_empty()));
        }
    }
    let functions: HashMap<_, _> = functions.iter().map(|(function, items)| (*function, items.as_slice())).collect();
    sum(&functions, main, false, &mut HashMap::new())
}

fn sum(
    functions: &HashMap<u32, &[(Item, bool)]>,
    function: u32,
    inside: bool,
    known: &mut HashMap<(u32, bool), InLoops>,
) -> InLoops {
    if let Some(known) = known.get(&(function, inside)) {
        return *known;
    }
    let mut total = InLoops::default();
    for (item, in_loop) in functions[&function] {
        let inside = inside || *in_loop;
        let own = match item {
            Item::Call(called) => sum(functions, *called, inside, known),
            Item::Own(own) if inside => *own,
            Item::Own(_) => continue,
        };
        total.minima += own.minima;
        total.multiply_adds += own.multiply_adds;
    }
    known.insert((function, inside), total);
    total
}

#[cfg(test)]
mod tests {
    use naga::proc::BoundsCheckPolicy::{Restrict, Unchecked};

    use super::*;
    use crate::translate;

    #[test]
    fn clamps_in_loops_are_counted() {
        let text = "var<workgroup> tile: array<array<vec4<f32>, 8>, 4>;
            @group(0) @binding(0) var<storage, read_write> o: array<vec4<f32>>;
            fn term(at: u32, sum: vec4<f32>) -> vec4<f32> { return fma(tile[1][at], tile[2][3], sum); }
            @compute @workgroup_size(8) fn main(@builtin(local_invocation_index) local: u32) {
                tile[local / 8u][local] = o[local];
                var sum = vec4(0.0);
                for (var i = 0u; i < 4u; i++) { sum = term(i, sum) + tile[i][min(local, 3u)]; }
                o[local] = sum;
            }";
        let (module, info) = translate::parse(text, naga::valid::Capabilities::empty()).expect("valid WGSL");
        let [checked, unchecked] = [Restrict, Unchecked]
            .map(|index| translate::spirv(&module, &info, (1, 6), [index, Unchecked]).expect("SPIR-V"));
        // One in `term`, two beside the call, none for the `min` that stands there, to four multiply-adds.
        assert_eq!(per_thousand(&checked, &unchecked), Some(750.0));
    }
}
