// The gradients of gau.wgsl with respect to h's last columns, and what the gradients of the maps are sums of, over all rows. An invocation
// owns a pair of neighbours.
struct Sizes {
    len: u32, // tokens of a sequence
    value_dim: u32, // of u and of v
    key_dim: u32, // of z, q and k
}

@group(0) @binding(0) var<storage, read> sizes: Sizes;
@group(0) @binding(1) var<storage, read> h: array<f32>; // [rows, 2 value_dim + key_dim]
@group(0) @binding(2) var<storage, read> maps: array<f32>; // [4, key_dim]
@group(0) @binding(3) var<storage, read> turns: array<vec2<f32>>; // [positions, key_dim / 2]
@group(0) @binding(4) var<storage, read> dq: array<f32>; // [rows, key_dim]
@group(0) @binding(5) var<storage, read> dk: array<f32>; // [rows, key_dim]
@group(0) @binding(6) var<storage, read_write> dh: array<f32>; // as h
@group(0) @binding(7) var<storage, read_write> dmaps: array<f32>; // [rows, 4, key_dim]

fn sigmoid(x: vec2<f32>) -> vec2<f32> {
    return 1.0 / (1.0 + exp(-x));
}

@compute @workgroup_size(64)
fn gau_keys_backward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let at = (id.y * count.x + id.x) * 64u + i;
    let pairs = sizes.key_dim / 2u;
    let row = at / max(pairs, 1u);
    let c = 2u * (at % max(pairs, 1u));
    if (row * sizes.key_dim >= arrayLength(&dq)) {
        return;
    }
    let column = row * (2u * sizes.value_dim + sizes.key_dim) + 2u * sizes.value_dim + c;
    let x = vec2(h[column], h[column + 1u]);
    let s = sigmoid(x);
    let z = x * s;
    let turn = turns[(row % sizes.len) * pairs + c / 2u];
    var dz = vec2(0.0);
    for (var which = 0u; which < 2u; which++) {
        let first = row * sizes.key_dim + c;
        var turned = vec2(dq[first], dq[first + 1u]);
        if (which == 1u) {
            turned = vec2(dk[first], dk[first + 1u]);
        }
        let d = vec2(turned.x * turn.x + turned.y * turn.y, turned.y * turn.x - turned.x * turn.y);
        for (var i = 0u; i < 2u; i++) {
            let map = (4u * row + 2u * which) * sizes.key_dim + c + i;
            dmaps[map] = d[i] * z[i];
            dmaps[map + sizes.key_dim] = d[i];
            dz[i] += d[i] * maps[2u * which * sizes.key_dim + c + i];
        }
    }
    let slope = dz * s * (1.0 + x * (1.0 - s));
    dh[column] = slope.x;
    dh[column + 1u] = slope.y;
}
