// The gradient of glu.wgsl. An invocation owns an element of g.
struct Sizes {
    dim: u32,
}

@group(0) @binding(0) var<storage, read> sizes: Sizes;
@group(0) @binding(1) var<storage, read> h: array<f32>; // [rows, 2 dim]
@group(0) @binding(2) var<storage, read> dg: array<f32>; // [rows, dim]
@group(0) @binding(3) var<storage, read_write> dh: array<f32>; // as h

@compute @workgroup_size(64)
fn glu_backward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let at = (id.y * count.x + id.x) * 64u + i;
    if (at >= arrayLength(&dg)) {
        return;
    }
    let first = at / sizes.dim * 2u * sizes.dim + at % sizes.dim;
    let a = h[first];
    let s = 1.0 / (1.0 + exp(-a));
    dh[first] = dg[at] * h[first + sizes.dim] * s * (1.0 + a * (1.0 - s));
    dh[first + sizes.dim] = dg[at] * a * s;
}
