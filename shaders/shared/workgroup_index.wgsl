// The dispatch's workgroups in one row: the grid is folded where it would exceed the device's limit per dimension, and
// a long dispatch is split; a kernel returns where the index reaches params.end_workgroup.
fn workgroup_index(id: vec3<u32>, count: vec3<u32>) -> u32 {
    return params.first_workgroup + id.y * count.x + id.x;
}
