// What the gradients of a row's logits have in common, in the workspace: of a class, p (all + mixed log p) - spread.
struct RowGradient {
    kind: u32,
    label: u32,
    margin: f32, // where a tensor holds it
    own: f32, // the gradient of the target's logit
    lse: f32,
    all: f32,
    mixed: f32,
    spread: f32,
}

const IDLE: u32 = 0u; // nothing comes in
const WHOLE: u32 = 1u;
const BROKEN: u32 = 2u;

@group(0) @binding(2) var<storage, read_write> row_gradients: array<RowGradient>; // [rows]
