// The keys as the caller has them.
@group(0) @binding(2) var<storage, read> k: array<Elem>; // [batch, kv_heads, kv_len, head_dim]
