// Features of the keys in the workspace, which the kernel also writes to: one buffer is bound in one way only.
@group(0) @binding(2) var<storage, read_write> k: array<Elem>; // [heads, rows of the round, head_dim in whole vec4s]
