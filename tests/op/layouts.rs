//! Files that hold their tensors another way: axes in another order, F64.

use std::path::Path;
use std::process::ExitCode;

use safetensors::tensor::Dtype;

use super::{File, call, path, run};

/// The file with two neighbouring axes of some tensors, counted from the last one, in the other order.
fn swapped(mut file: File, names: &[&str], axis_from_end: usize) -> File {
    for name in names {
        let (dtype, shape, bytes) = file.tensors.get_mut(*name).unwrap();
        let (size, a) = (dtype.bitsize() / 8, shape.len() - axis_from_end);
        let (rows, columns) = (shape[a], shape[a + 1]);
        let inner = size * shape[a + 2..].iter().product::<usize>();
        let mut out = Vec::with_capacity(bytes.len());
        for outer in bytes.chunks(rows * columns * inner) {
            for column in 0..columns {
                (0..rows).for_each(|row| out.extend(&outer[(row * columns + column) * inner..][..inner]));
            }
        }
        *bytes = out;
        shape.swap(a, a + 1);
    }
    file
}

fn assert_near(name: &str, got: &File, want: &File) {
    assert_eq!(got.tensors.keys().collect::<Vec<_>>(), want.tensors.keys().collect::<Vec<_>>(), "{name}");
    for (output, (dtype, shape, bytes)) in &want.tensors {
        assert_eq!((dtype, shape), (&got.tensors[output].0, &got.tensors[output].1), "{name}: {output}");
        if *dtype != Dtype::F32 {
            assert!(*bytes == got.tensors[output].2, "{name}: {output}");
            continue;
        }
        for (got, want) in got.numbers(output).into_iter().zip(want.numbers(output)) {
            assert!((got - want).abs() <= 1e-5 * want.abs().max(1.0), "{name}: {output}: got {got}, want {want}");
        }
    }
}

#[test]
fn heads_may_stand_behind_positions() {
    let rows = |op, config, len: usize| {
        let file = File::new(op, config).f32("q", &[2, 4, 5, 4]).f32("k", &[2, 2, len, 4]);
        file.f32("v", &[2, 2, len, 3])
    };
    // Bias, mask, scales of rows and states are as ever.
    let attention = rows("attention", r#"{"scale":"per_row"}"#, 7).f32("bias", &[4, 5, 7]).f32("row_scale", &[4, 5]);
    let attention = attention.with("mask", Dtype::BOOL, &[5, 7], (0..35).map(|at| u8::from(at % 3 != 0)).collect());
    let linear = rows("linear_attention", r#"{"mode":"causal"}"#, 5);
    let linear =
        linear.f32("state_s", &[2, 2, 4, 3]).with("state_z", Dtype::F32, &[2, 2, 4], 1f32.to_le_bytes().repeat(16));
    let gau = File::new("gated_attention", "{}").f32("z", &[2, 4, 5, 4]).f32("gamma_q", &[4, 4]).f32("gamma_k", &[4]);
    let gau = gau.f32("v", &[2, 4, 5, 3]).f32("u", &[2, 4, 5, 3]);
    let merge =
        File::new("merge", r#"{"accumulate":true}"#).f32("o_parts", &[3, 2, 4, 5, 3]).f32("lse_parts", &[3, 2, 4, 5]);
    let merge = merge.f32("o", &[2, 4, 5, 3]).f32("lse", &[2, 4, 5]);
    let table = [
        ("attention", attention.clone(), vec!["q", "k", "v"]),
        ("halves", attention.halved(Dtype::BF16).metadata("output_dtype", "F16"), vec!["q", "k", "v"]),
        ("linear", linear, vec!["q", "k", "v"]),
        ("gau", gau, vec!["z", "v", "u"]),
        ("merge", merge, vec!["o_parts", "o"]),
    ];
    for (name, file, inputs) in table {
        let file = match name {
            // A mask is no float.
            "halves" => file.with("mask", Dtype::BOOL, &[1, 7], vec![1, 1, 0, 1, 1, 1, 1]),
            _ => file,
        };
        let want = swapped(run(&format!("bhsd-{name}"), &file), &["o"], 3);
        let got = run(&format!("bshd-{name}"), &swapped(file, &inputs, 3).metadata("layout", "bshd"));
        assert_eq!(got.metadata["layout"], "bshd");
        assert!(!want.metadata.contains_key("layout"));
        assert_near(name, &got, &want);
    }
}

#[test]
fn matrices_may_stand_transposed() {
    let numbers = |numbers: &[f32]| numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
    let by_hand = File::new("matmul", "{}").with("a", Dtype::F32, &[2, 3], numbers(&[1.0, 3.0, 5.0, 2.0, 4.0, 6.0]));
    let by_hand = by_hand.with("b", Dtype::F32, &[2, 2], numbers(&[1.0, -1.0, 0.5, 2.0])).metadata("transpose", "a, b");
    // [1 2; 3 4; 5 6] times [1 0.5; -1 2].
    assert_eq!(run("by-hand", &by_hand).numbers("c"), [-1.0, 4.5, -1.0, 9.5, -1.0, 14.5]);

    let [square, column] =
        [4, 1].map(|k| File::new("matmul", "{}").f32("a", &[3, 2, 5, k]).f32("b", &[k, 6]).f32("bias", &[6]));
    for (name, file) in [("square", square.clone()), ("column", column), ("halves", square.halved(Dtype::F16))] {
        let want = run(&format!("plain-{name}"), &file);
        for (list, names) in [("a", vec!["a"]), ("b", vec!["b"]), ("b,a", vec!["a", "b"])] {
            let file = swapped(file.clone(), &names, 2).metadata("transpose", list);
            assert_near(name, &run(&format!("transposed-{name}-{}", names.concat()), &file), &want);
        }
    }
}

#[test]
fn f64_is_rounded_and_said_to_be() {
    let mut file = File::attention().f32("bias", &[5]);
    let want = run("f32", &file);
    for name in ["q", "bias"] {
        let (dtype, _, bytes) = file.tensors.get_mut(name).unwrap();
        let words = bytes.chunks_exact(4).map(|word| f32::from_le_bytes(word.try_into().unwrap()));
        // So little more that it rounds to the same.
        let doubles: Vec<u8> = words.flat_map(|x| (f64::from(x) * (1.0 + 1e-9)).to_le_bytes()).collect();
        (*dtype, *bytes) = (Dtype::F64, doubles);
    }
    let (input, output) = (path("f64"), path("f64-out"));
    file.write(&input);
    let (code, _, err) = call(&[&input, &output, Path::new("--check")]);
    assert_eq!((code, err.as_str()), (ExitCode::SUCCESS, "note: F64 is rounded to f32: q, bias\n"));
    let got = File::read(&output);
    assert!(["o", "lse"].iter().all(|name| got.numbers(name) == want.numbers(name)));
}
