// The columns that the mask leaves are not counted before.
fn counted(own: u32) -> u32 {
    return 0u;
}
