//! Program and assertions as one source.

use cognate_languages::Language;

/// Where code stands between tags (PHP), the assertions go on between them.
pub fn append(source: &str, code: &str, language: &Language) -> String {
    let mut text = source.to_owned();
    if let Some([open, close]) = &language.tags {
        let closed = match (text.rfind(open.as_str()), text.rfind(close.as_str())) {
            (Some(o), Some(c)) => c > o,
            (None, _) => true,
            _ => false,
        };
        let opens = code.trim_start().starts_with(open.as_str());
        if closed && !opens {
            return format!("{text}{open}\n{code}\n");
        }
        if !closed && opens {
            text = format!("{}\n{close}", text.trim_end());
        }
    }
    format!("{text}\n{code}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use cognate_languages::Languages;

    #[test]
    fn assertions_go_on_between_php_tags() {
        let table = Languages::builtin();
        let php = table.get("php").unwrap();
        assert_eq!(append("<?php f();", "g();", php), "<?php f();\ng();\n");
        assert_eq!(append("<?php f(); ?>", "g();", php), "<?php f(); ?><?php\ng();\n");
        assert_eq!(append("<?php f();", "<?php g();", php), "<?php f();\n?>\n<?php g();\n");
        assert_eq!(append("f()", "g()", table.get("python").unwrap()), "f()\ng()\n");
    }
}
