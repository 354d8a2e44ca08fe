//! Attention inside an app's own frame: `cargo run --release --example embed -- embed.png`.
//!
//! The app owns the device and every buffer. One encoder, one submit: a compute pass of the app's writes q, k and v; our
//! attention follows; a render pass of the app's draws straight from our outputs. Nothing is read back in between.
//!
//! The picture is a mosaic of seeds laid out as in a sunflower. A query is a pixel, a key is a seed, and
//! q·k = β (2 x·c − |c|²) falls with the distance from pixel x to seed c, so softmax is how much of each seed's colour the
//! pixel takes. β grows from left to right: soft attention blurs the seeds, sharp attention picks the nearest. Row entropy
//! is high where seeds compete, and is drawn as the depth of the joints.

use std::fs::File;
use std::io::{BufWriter, Write};

use wgpu::util::initialize_adapter_from_env_or_default;
use wgpu::{BufferUsages, TextureUsages};
use wgpu_attention::{Attention, AttentionConfig, AttentionInputs, AttentionOutputs, Context, Scale, TensorView};

/// Pixels along a side: a multiple of 64, since the rows of a copy out of a texture start at multiples of 256 bytes.
const SIZE: u32 = 640;
const SEEDS: u32 = 900;

fn main() -> anyhow::Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "embed.png".into());

    // The app's device, with default limits and no features, and its buffers.
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let adapter = pollster::block_on(initialize_adapter_from_env_or_default(&instance, None))?;
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()))?;
    let buffer = |elements: u32, usage| {
        device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 4 * u64::from(elements),
            usage,
            mapped_at_creation: false,
        })
    };
    let [q, o] = [(); 2].map(|()| buffer(4 * SIZE * SIZE, BufferUsages::STORAGE));
    let [k, v] = [(); 2].map(|()| buffer(4 * SEEDS, BufferUsages::STORAGE));
    let entropy = buffer(SIZE * SIZE, BufferUsages::STORAGE);
    let picture = buffer(SIZE * SIZE, BufferUsages::MAP_READ | BufferUsages::COPY_DST);
    let format = wgpu::TextureFormat::Rgba8UnormSrgb;
    let extent = wgpu::Extent3d { width: SIZE, height: SIZE, depth_or_array_layers: 1 };
    let target = device.create_texture(&wgpu::TextureDescriptor {
        label: None,
        size: extent,
        mip_level_count: 1,
        sample_count: 1,
        dimension: wgpu::TextureDimension::D2,
        format,
        usage: TextureUsages::RENDER_ATTACHMENT | TextureUsages::COPY_SRC,
        view_formats: &[],
    });

    // The app's pipelines; embed.wgsl holds their shaders.
    let module = &device.create_shader_module(wgpu::include_wgsl!("embed.wgsl"));
    let constants = &[("SIZE", f64::from(SIZE))];
    let compilation_options = wgpu::PipelineCompilationOptions { constants, ..Default::default() };
    let scene = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module,
        entry_point: Some("scene"),
        compilation_options: compilation_options.clone(),
        cache: None,
    });
    let glass = device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
        label: None,
        layout: None,
        vertex: wgpu::VertexState {
            module,
            entry_point: Some("corner"),
            compilation_options: compilation_options.clone(),
            buffers: &[],
        },
        primitive: wgpu::PrimitiveState::default(),
        depth_stencil: None,
        multisample: wgpu::MultisampleState::default(),
        fragment: Some(wgpu::FragmentState {
            module,
            entry_point: Some("glass"),
            compilation_options,
            targets: &[Some(format.into())],
        }),
        multiview_mask: None,
        cache: None,
    });
    let bind = |layout: wgpu::BindGroupLayout, first: u32, buffers: &[&wgpu::Buffer]| {
        let resources = buffers.iter().map(|buffer| buffer.as_entire_binding());
        let entries = (first..).zip(resources).map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource });
        let entries: Vec<_> = entries.collect();
        device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &entries })
    };

    // Ours: the op, and views of the app's buffers as [batch, heads, len, dim].
    let context = Context::new(device.clone(), queue.clone());
    let attention = Attention::new(&context, AttentionConfig::new().scale(Scale::Fixed(1.0)))?;
    let [pixels, seeds] = [[1, 1, SIZE * SIZE, 4], [1, 1, SEEDS, 4]];
    let inputs =
        AttentionInputs::new(TensorView::f32(&q, pixels), TensorView::f32(&k, seeds), TensorView::f32(&v, seeds));
    let entropy_rows = Some(TensorView::f32(&entropy, [1, 1, SIZE * SIZE]));
    let outputs = AttentionOutputs { entropy: entropy_rows, ..AttentionOutputs::new(TensorView::f32(&o, pixels)) };

    // One frame: the app's compute pass ...
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
    pass.set_pipeline(&scene);
    pass.set_bind_group(0, &bind(scene.get_bind_group_layout(0), 0, &[&q, &k, &v]), &[]);
    pass.dispatch_workgroups(SIZE / 8, SIZE / 8, 1);
    drop(pass);
    // ... attention ...
    attention.record(&mut encoder, inputs, outputs)?;
    // ... the app's render pass, from what attention wrote ...
    let view = target.create_view(&wgpu::TextureViewDescriptor::default());
    let attachment = wgpu::RenderPassColorAttachment {
        view: &view,
        depth_slice: None,
        resolve_target: None,
        ops: wgpu::Operations::default(),
    };
    let mut pass = encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
        color_attachments: &[Some(attachment)],
        ..Default::default()
    });
    pass.set_pipeline(&glass);
    pass.set_bind_group(0, &bind(glass.get_bind_group_layout(0), 3, &[&o, &entropy]), &[]);
    pass.draw(0..3, 0..1);
    drop(pass);
    // ... and the picture on its way out.
    let layout = wgpu::TexelCopyBufferLayout { offset: 0, bytes_per_row: Some(4 * SIZE), rows_per_image: None };
    encoder.copy_texture_to_buffer(
        target.as_image_copy(),
        wgpu::TexelCopyBufferInfo { buffer: &picture, layout },
        extent,
    );
    queue.submit([encoder.finish()]);

    // The picture, as a file.
    picture.slice(..).map_async(wgpu::MapMode::Read, |_| {});
    device.poll(wgpu::PollType::wait_indefinitely())?;
    let mut png = png::Encoder::new(BufWriter::new(File::create(&path)?), SIZE, SIZE);
    png.set_color(png::ColorType::Rgba);
    png.set_source_srgb(png::SrgbRenderingIntent::Perceptual);
    png.write_header()?.write_image_data(&picture.slice(..).get_mapped_range()?)?;
    let info = adapter.get_info();
    writeln!(std::io::stdout(), "{path}: {SIZE} × {SIZE} queries, {SEEDS} keys, on {} ({})", info.name, info.backend)?;
    Ok(())
}
