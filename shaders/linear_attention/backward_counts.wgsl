// What each query counts in the sums of the backward pass over a chunk: G = sum of phi(q) dn and h = sum of phi(q) dw.
@group(0) @binding(12) var<storage, read_write> numbers: array<vec4<f32>>; // [q_heads, rows of the round]: unit, 1 / w, -do.o, unit

var<private> numbers_at: u32; // of the head's first row

fn start_counts(batch: u32, head: u32) {
    numbers_at = params.numbers_start + batch * params.numbers_batch + head * params.numbers_head;
}

// Features of a query over its w, as they are multiplied with do.
fn scaled(features: vec4<f32>, query: u32) -> vec4<f32> {
    return numbers[numbers_at + query].y * features;
}

// The same times -do.o.
fn counted(features: vec4<f32>, query: u32) -> vec4<f32> {
    return numbers[numbers_at + query].z * features;
}
