//! kube/CAPACITY.md: its sums are right, and each of its figures says how it was measured.

use std::collections::BTreeMap;
use std::fs;

use super::{Kube, root};

const PAGE: &str = "CAPACITY.md";

/// A figure of the table: its values by name (`R.in`, `R.out`), and how it was measured.
struct Figure {
    values: Vec<(String, f64)>,
    measured_by: String,
}

/// The rows that begin with a name in bold: name, what it is, in, out, how it was measured.
fn figures(page: &str) -> Vec<Figure> {
    let rows = page.lines().filter(|line| line.starts_with("| **"));
    let figure = |row: &str| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, _, inwards, out, measured_by] = cells[..] else {
            panic!("{row}")
        };
        let name = name.trim_matches('*');
        let ends = [("in", inwards), ("out", out)];
        let values = ends.map(|(end, value)| (format!("{name}.{end}"), number(value).expect(row)));
        Figure {
            values: values.to_vec(),
            measured_by: measured_by.to_owned(),
        }
    };
    rows.map(figure).collect()
}

fn number(text: &str) -> Option<f64> {
    text.replace(',', "").parse().ok()
}

/// Sums, products and quotients of numbers and figures, with blanks between.
fn value(sum: &str, figures: &BTreeMap<String, f64>) -> Option<f64> {
    let of = |word: &str| number(word).or_else(|| figures.get(word).copied());
    let mut words = sum.split(' ');
    let (mut total, mut product) = (0.0, of(words.next()?)?);
    while let Some(sign) = words.next() {
        let next = of(words.next()?)?;
        match sign {
            "×" => product *= next,
            "/" => product /= next,
            "+" => (total, product) = (total + product, next),
            _ => return None,
        }
    }
    Some(total + product)
}

/// What stands between backquotes and has an equals sign.
fn sums(page: &str) -> Vec<&str> {
    let spans = page.split('`').skip(1).step_by(2);
    spans.filter(|span| span.contains(" = ")).collect()
}

#[test]
fn the_sums_of_the_capacity_page_are_right() {
    let page = Kube::new().read(PAGE);
    let figures = figures(&page).into_iter().flat_map(|figure| figure.values);
    let figures: BTreeMap<String, f64> = figures.collect();
    let sums = sums(&page);
    assert!(sums.len() >= 12, "only {}", sums.len());
    let mut wrong = Vec::new();
    for sum in &sums {
        let (left, right) = sum.split_once(" = ").unwrap();
        let wanted = value(left, &figures).unwrap_or_else(|| panic!("{sum}: no sum"));
        let said = number(right).unwrap_or_else(|| panic!("{sum}: no number"));
        // Rounded, to two digits at the least.
        if (said - wanted).abs() > wanted * 0.05 {
            wrong.push(format!("{left} = {wanted}, not {right}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // What was replaced in the table has to reach a sum.
    let inwards = figures
        .keys()
        .filter(|name| name.split('.').nth(1) == Some("in"));
    for name in inwards {
        let used = sums
            .iter()
            .any(|sum| sum.split(' ').any(|word| word == name));
        assert!(used, "no sum with {name}");
    }
}

#[test]
fn each_figure_of_the_capacity_page_names_the_command_that_measures_it() {
    let kube = Kube::new();
    let page = kube.read(PAGE);
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let rows = read("tests/bench/bench.py");
    let tests = ["tests/it/cost.rs", "tests/it/local_store/dest.rs"].map(read);
    let figures = figures(&page);
    assert!(figures.len() >= 8);
    for Figure { measured_by, .. } in figures {
        let command = measured_by.split('`').nth(1).expect(&measured_by);
        let last = command.rsplit([' ', ':']).next().unwrap();
        let known = if let Some(rest) = command.strip_prefix("./build.sh bench ") {
            let row = rest.split(' ').next().unwrap();
            matches!(row, "shards" | "scale") || rows.contains(&format!("Row(\"{row}\""))
        } else {
            assert!(command.starts_with("cargo test --test it -- "), "{command}");
            tests
                .iter()
                .any(|text| text.contains(&format!("fn {last}(")))
        };
        assert!(known, "{command}");
    }
    assert!(kube.read("README.md").contains("](CAPACITY.md)"));
}
