//! What `op --check` says of results, and how it ends.

use std::path::Path;
use std::process::ExitCode;

use safetensors::tensor::Dtype;

use super::{File, call, number_after, path};

/// Exit code, and each output's line, of a check with these arguments.
fn check(name: &str, file: &File, args: &[&str]) -> (ExitCode, Vec<String>, String) {
    let (input, output) = (path(name), path(&format!("{name}-out")));
    file.write(&input);
    let args: Vec<&Path> =
        [input.as_path(), &output, Path::new("--check")].into_iter().chain(args.iter().map(Path::new)).collect();
    let (code, out, err) = call(&args);
    assert!(output.exists(), "{name}: {err}");
    (code, out.lines().skip(1).map(Into::into).collect(), err)
}

#[test]
fn what_is_allowed_is_printed() {
    let (code, lines, err) = check("check", &File::attention(), &[]);
    assert_eq!((code, err.as_str()), (ExitCode::SUCCESS, ""));
    assert_eq!(lines.len(), 3);
    for line in lines {
        let [error, allowed, rms, largest] =
            ["at most ", "(allowed ", "rms ", "largest value "].map(|words| number_after(&line, words));
        // Of some ulps, and not of none.
        assert!(error <= allowed && (1e-7..2e-5).contains(&(allowed / largest)), "{line}");
        assert!(rms <= error && line.matches("(allowed ").count() == 2, "{line}");
    }
}

#[test]
fn a_tolerance_takes_the_place_of_the_rule() {
    let (code, lines, err) = check("tolerance", &File::attention(), &["--tolerance", "1e-3"]);
    assert_eq!((code, err.as_str()), (ExitCode::SUCCESS, ""));
    for line in &lines {
        let [allowed, largest] = ["(allowed ", "largest value "].map(|words| number_after(line, words));
        assert!((allowed / largest / 1e-3 - 1.0).abs() < 1e-2 && line.matches("(allowed ").count() == 1, "{line}");
    }
    // No f32 is that near to numbers that it does not hold.
    let (code, lines, err) = check("no-tolerance", &File::attention(), &["--tolerance", "0"]);
    assert_eq!((code, err.as_str()), (ExitCode::from(1), "further off than allowed: o, lse, entropy\n"), "{lines:?}");
    for (wrong, says) in [("-1", "must be 0 or more"), ("NaN", "must be 0 or more"), ("small", "not a number")] {
        let (code, _, err) = call(&["a", "b", "--check", &format!("--tolerance={wrong}")].map(Path::new));
        assert!(code == ExitCode::from(2) && err.contains(says), "{wrong}: {err}");
    }
    let (code, _, err) = call(&["a", "b", "--tolerance", "1"].map(Path::new));
    assert!(code == ExitCode::from(2) && err.contains("--check"), "{err}");
}

/// Numbers that the type of the output does not hold are right as its infinity.
#[test]
fn infinities_and_nan() {
    let product = |a: [f32; 2]| {
        let words = |numbers: [f32; 2]| numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let file = File::new("matmul", "{}").with("a", Dtype::F32, &[1, 1, 2, 1], words(a));
        file.with("b", Dtype::F32, &[1, 1, 1, 2], words([300.0, -2.0]))
    };
    for (name, file) in [
        ("f16", product([300.0, 1.0]).metadata("output_dtype", "F16")),
        ("f32", product([3e38, 1.0])),
        ("infinite", product([f32::INFINITY, 1.0])),
    ] {
        let (code, lines, err) = check(&format!("overflow-{name}"), &file, &[]);
        assert_eq!((code, err.as_str()), (ExitCode::SUCCESS, ""), "{name}: {lines:?}");
    }
    let (code, lines, _) = check("nan", &product([f32::NAN, 1.0]), &[]);
    assert_eq!(code, ExitCode::SUCCESS, "{lines:?}");
    assert!(lines[0].ends_with("largest value 3.00e2, 2 not compared as the reference is NaN"), "{lines:?}");
}
