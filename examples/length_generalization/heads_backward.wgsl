// The gradient of h from those of q, k and v: turned back. An invocation owns a pair of neighbours of each.
struct Sizes {
    len: u32, // tokens of a sequence
    dim: u32, // of q, of k and of v, all heads together
    head_dim: u32,
}

@group(0) @binding(0) var<storage, read> sizes: Sizes;
@group(0) @binding(1) var<storage, read> turns: array<vec2<f32>>; // [positions, head_dim / 2]
@group(0) @binding(2) var<storage, read> dq: array<vec2<f32>>; // [rows, dim / 2], as k and v
@group(0) @binding(3) var<storage, read> dk: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read> dv: array<vec2<f32>>;
@group(0) @binding(5) var<storage, read_write> dh: array<vec2<f32>>; // [rows, 3 dim / 2]

fn turned_back(x: vec2<f32>, turn: vec2<f32>) -> vec2<f32> {
    return vec2(x.x * turn.x + x.y * turn.y, x.y * turn.x - x.x * turn.y);
}

@compute @workgroup_size(64)
fn heads_backward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let at = (id.y * count.x + id.x) * 64u + i;
    if (at >= arrayLength(&dq)) {
        return;
    }
    let pairs = sizes.dim / 2u;
    let row = at / pairs;
    let c = at % pairs;
    let turn = turns[(row % sizes.len) * (sizes.head_dim / 2u) + 2u * c % sizes.head_dim / 2u];
    dh[row * 3u * pairs + c] = turned_back(dq[at], turn);
    dh[(row * 3u + 1u) * pairs + c] = turned_back(dk[at], turn);
    dh[(row * 3u + 2u) * pairs + c] = dv[at];
}
