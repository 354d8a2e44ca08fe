// What the invocations of a subgroup, which is the workgroup, each own a share of, told to all.
fn tell(own: Share) -> Told {
    var all: Told;
    for (var c = 0u; c < HEAD_CHUNKS; c++) { // unroll
        all[c] = subgroupBroadcast(own[c / WORKGROUP], c % WORKGROUP);
    }
    return all;
}

fn total(own: f32) -> f32 {
    return subgroupAdd(own);
}

// Stores the chunks of all invocations, the first one's at `chunk`. One invocation stores them all: llvmpipe is slow at storing
// to an address that differs between invocations.
fn store_told(base: u32, chunk: u32, own: vec4<f32>) {
    for (var i = 0u; i < WORKGROUP; i++) { // unroll
        let told = subgroupBroadcast(own, i);
        if (lane == 0u && chunk + i < V_CHUNKS) {
            store_o(base, chunk + i, told);
        }
    }
}
