// The gradients of gau.wgsl with respect to h's first columns: those of u and of v, through silu. An invocation owns an element of them.
struct Sizes {
    len: u32, // tokens of a sequence
    value_dim: u32, // of u and of v
    key_dim: u32, // of z, q and k
}

@group(0) @binding(0) var<storage, read> sizes: Sizes;
@group(0) @binding(1) var<storage, read> h: array<f32>; // [rows, 2 value_dim + key_dim]
@group(0) @binding(2) var<storage, read> du: array<f32>; // [rows, value_dim]
@group(0) @binding(3) var<storage, read> dv: array<f32>; // [rows, value_dim]
@group(0) @binding(4) var<storage, read_write> dh: array<f32>; // as h

fn silu_slope(x: f32) -> f32 {
    let s = 1.0 / (1.0 + exp(-x));
    return s * (1.0 + x * (1.0 - s));
}

@compute @workgroup_size(64)
fn gau_values_backward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let at = (id.y * count.x + id.x) * 64u + i;
    if (at >= arrayLength(&du)) {
        return;
    }
    let row = at / sizes.value_dim;
    let column = row * (2u * sizes.value_dim + sizes.key_dim) + at % sizes.value_dim;
    dh[column] = du[at] * silu_slope(h[column]);
    dh[column + sizes.value_dim] = dv[at] * silu_slope(h[column + sizes.value_dim]);
}
