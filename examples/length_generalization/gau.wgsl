// What a gated attention unit takes, from h = x W: u, v = silu of h's first columns, z = silu of the last, and q, k = rope(gamma z + beta).
// An invocation owns an element of h. Neighbours in pairs are turned together, by the angles of their position.
// Source: Hua et al., "Transformer Quality in Linear Time", 2022, section 3; Su et al., "RoFormer", 2021, equation 34.
struct Sizes {
    len: u32, // tokens of a sequence
    value_dim: u32, // of u and of v
    key_dim: u32, // of z, q and k
}

@group(0) @binding(0) var<storage, read> sizes: Sizes;
@group(0) @binding(1) var<storage, read> h: array<f32>; // [rows, 2 value_dim + key_dim]
@group(0) @binding(2) var<storage, read> maps: array<f32>; // [4, key_dim]: gamma and beta of q, gamma and beta of k
@group(0) @binding(3) var<storage, read> turns: array<vec2<f32>>; // [positions, key_dim / 2]: cosine and sine
@group(0) @binding(4) var<storage, read_write> uv: array<f32>; // [rows, 2 value_dim]
@group(0) @binding(5) var<storage, read_write> qk: array<f32>; // [rows, 2 key_dim]

fn silu(x: f32) -> f32 {
    return x / (1.0 + exp(-x));
}

// Two neighbours of q or of k, turned.
fn pair_of(z: vec2<f32>, map: u32, c: u32, turn: vec2<f32>) -> vec2<f32> {
    let gamma = vec2(maps[map * sizes.key_dim + c], maps[map * sizes.key_dim + c + 1u]);
    let beta = vec2(maps[(map + 1u) * sizes.key_dim + c], maps[(map + 1u) * sizes.key_dim + c + 1u]);
    let x = gamma * z + beta;
    return vec2(x.x * turn.x - x.y * turn.y, x.x * turn.y + x.y * turn.x);
}

@compute @workgroup_size(64)
fn gau(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let at = (id.y * count.x + id.x) * 64u + i;
    if (at >= arrayLength(&h)) {
        return;
    }
    let width = 2u * sizes.value_dim + sizes.key_dim;
    let row = at / width;
    let column = at % width;
    if (column < 2u * sizes.value_dim) {
        uv[row * 2u * sizes.value_dim + column] = silu(h[at]);
        return;
    }
    let c = column - 2u * sizes.value_dim;
    if (c % 2u == 1u) {
        return;
    }
    let z = vec2(silu(h[at]), silu(h[at + 1u]));
    let turn = turns[(row % sizes.len) * (sizes.key_dim / 2u) + c / 2u];
    for (var which = 0u; which < 2u; which++) {
        let pair = pair_of(z, 2u * which, c, turn);
        qk[(2u * row + which) * sizes.key_dim + c] = pair.x;
        qk[(2u * row + which) * sizes.key_dim + c + 1u] = pair.y;
    }
}
