//! Whether an XML answer came to its end. The reader of XML takes a text that breaks off for a
//! whole one as soon as it has seen all that it must: half a listing would be acted on.

/// Whether `text` ends with the end of its root element. Inside of it no such end can stand: no
/// answer of S3 nests its root.
pub(super) fn is_whole(text: &str) -> bool {
    let mut rest = text.trim_start();
    if let Some(prolog) = rest.strip_prefix("<?") {
        rest = prolog
            .split_once("?>")
            .map_or("", |(_, rest)| rest.trim_start());
    }
    let name = rest.strip_prefix('<').unwrap_or_default();
    let end = name.find(|c: char| c.is_whitespace() || matches!(c, '>' | '/'));
    let name = &name[..end.unwrap_or(0)];
    if rest
        .trim_end()
        .strip_suffix("/>")
        .is_some_and(|before| !before.contains('>'))
    {
        return !name.is_empty();
    }
    let before = rest.trim_end().strip_suffix('>');
    let before = before.and_then(|rest| rest.trim_end().strip_suffix(name));
    !name.is_empty() && before.is_some_and(|rest| rest.ends_with("</"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// All that `text` may be cut to.
    pub(in super::super) fn cuts(text: &str) -> impl Iterator<Item = &str> {
        (0..text.len()).filter_map(|end| text.get(..end))
    }

    #[test]
    fn text_is_whole_with_the_end_of_its_root_and_not_a_byte_before() {
        let prolog = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
        for text in [
            "<a><b>c</b></a>",
            "<a xmlns=\"n\"/>",
            " \n<a xmlns=\"n\"><ab></ab><b/></a>",
            &format!("{prolog}<Error><Code>x</Code></Error>"),
        ] {
            assert!(is_whole(text), "{text}");
            assert!(is_whole(&format!("{text}\n ")), "{text}");
            for cut in cuts(text) {
                assert!(!is_whole(cut), "{cut}");
            }
        }
        for text in [
            "",
            "<>",
            "</>",
            "<a></ba>",
            "a</a>",
            "<!doctype html><html></html>",
        ] {
            assert!(!is_whole(text), "{text}");
        }
    }
}
