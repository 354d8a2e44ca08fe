// Queries and keys of every head, from the first columns of h = x W, turned by the angles of their position. An invocation owns a pair of
// neighbours.
// Source: Su et al., "RoFormer", 2021, equation 34.
struct Sizes {
    len: u32, // tokens of a sequence
    dim: u32, // of q, of k and of v, all heads together
    head_dim: u32,
}

@group(0) @binding(0) var<storage, read> sizes: Sizes;
@group(0) @binding(1) var<storage, read> h: array<f32>; // [rows, 3 dim]
@group(0) @binding(2) var<storage, read> turns: array<vec2<f32>>; // [positions, head_dim / 2]: cosine and sine
@group(0) @binding(3) var<storage, read_write> qk: array<vec2<f32>>; // [rows, dim]: 2 dim numbers a row

@compute @workgroup_size(64)
fn heads(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let at = (id.y * count.x + id.x) * 64u + i;
    if (at >= arrayLength(&qk)) {
        return;
    }
    let row = at / sizes.dim;
    let c = 2u * (at % sizes.dim);
    let x = vec2(h[row * 3u * sizes.dim + c], h[row * 3u * sizes.dim + c + 1u]);
    let turn = turns[(row % sizes.len) * (sizes.head_dim / 2u) + c % sizes.head_dim / 2u];
    qk[at] = vec2(x.x * turn.x - x.y * turn.y, x.x * turn.y + x.y * turn.x);
}
