// The gated linear unit between attention layers: g = silu(a) b, a and b the halves of h's rows. An invocation owns an element of g.
// Source: Shazeer, "GLU Variants Improve Transformer", 2020, equation 5.
struct Sizes {
    dim: u32,
}

@group(0) @binding(0) var<storage, read> sizes: Sizes;
@group(0) @binding(1) var<storage, read> h: array<f32>; // [rows, 2 dim]
@group(0) @binding(2) var<storage, read_write> g: array<f32>; // [rows, dim]

@compute @workgroup_size(64)
fn glu(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let at = (id.y * count.x + id.x) * 64u + i;
    if (at >= arrayLength(&g)) {
        return;
    }
    let first = at / sizes.dim * 2u * sizes.dim + at % sizes.dim;
    g[at] = h[first] / (1.0 + exp(-h[first])) * h[first + sizes.dim];
}
