// Visible keys per batch, clamped to the length of k, from where backward_scales.wgsl has left them. What is in a buffer that may be
// written is the same in the whole workgroup only where one invocation reads it for all.
var<workgroup> read_len: u32;

fn kv_len_of(batch: u32) -> u32 {
    if (invocation == 0u) {
        read_len = facts[params.rows + batch].x;
    }
    return workgroupUniformLoad(&read_len);
}
