// The same for a kernel that writes elsewhere in the workspace: a dispatch may not bind one buffer both ways.
@group(0) @binding(6) var<storage, read_write> maps: array<vec4<f32>>; // [map, head, gamma or beta, key_dim / 4]
