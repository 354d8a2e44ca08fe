// The uniform of the kernels that walk columns.
struct Params {
    first_workgroup: u32, // of this dispatch
    end_workgroup: u32,
    rows: u32,
    columns: u32, // classes
    slices: u32, // of a row
    written_slices: u32, // `slices`, or 1 where nothing is written for each column
    slice_chunks: u32, // chunks of four columns in a slice
    tau: f32, // the temperature, where no tensor has it
    key_start: u32, // starts and strides in elements
    key_stride: u32,
    logits_start: u32,
    logits_rows: u32,
    mask_start: u32, // bytes
    mask_rows: u32,
    y_start: u32,
    y_rows: u32,
    index_start: u32,
    index_stride: u32,
    noise_start: u32,
    noise_rows: u32,
    dy_start: u32,
    dy_rows: u32,
    dlogits_start: u32,
    dlogits_rows: u32,
    dtau_rows_start: u32,
    dtau_rows_stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
