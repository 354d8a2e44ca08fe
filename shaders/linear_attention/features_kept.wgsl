// The dims of the four rows are kept, for drivers on a CPU.
var<private> x_block: array<mat4x4<f32>, HEAD_CHUNKS>;

fn keep_rows(base: vec4<u32>) {
    for (var c = 0u; c < HEAD_CHUNKS; c++) {
        x_block[c] = load_rows(base, c);
    }
}

// Dims 4c to 4c + 3 of the four rows.
fn x_chunk(c: u32) -> mat4x4<f32> {
    return x_block[c];
}
