// The rows of a tile.
var<private> first_row: u32; // of the tile
var<private> sum: PerRow; // of the weights of this invocation's features and keys
var<private> q_at: vec4<u32>; // where the four rows of q start that this invocation brings to workgroup memory

// Positions of the rows of one of this invocation's groups.
fn rows_of(g: u32) -> vec4<u32> {
    return vec4(first_row + row_of(g)) + vec4(0u, 1u, 2u, 3u);
}

// Four dims of the rows that this invocation brings, as the map has them; a vec4 holds one for each row.
fn mapped_rows(c: u32) -> mat4x4<f32> {
    return transpose(
        mat4x4(
            mapped(c, load_q(q_at.x, c)),
            mapped(c, load_q(q_at.y, c)),
            mapped(c, load_q(q_at.z, c)),
            mapped(c, load_q(q_at.w, c)),
        ),
    );
}
