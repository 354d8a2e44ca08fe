// Where the affine maps of z stand, as gather_maps.wgsl lays them out.
@group(0) @binding(6) var<storage, read> maps: array<vec4<f32>>; // [map, head, gamma or beta, key_dim / 4]
