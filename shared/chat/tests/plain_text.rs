//! Content never yields a control token, and ordinary text comes back as it was.

use cognate_chat::{Chat, TokenizerRecipe};
use cognate_records::Message;
use proptest::prelude::*;
use tempfile::TempDir;
use tokenizers::Tokenizer;

/// Bytes, a few merges, and words as they are cut in code.
fn tiny() -> (TempDir, Chat) {
    let directory = tempfile::tempdir().unwrap();
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let recipe = TokenizerRecipe {
        words: Some(r" ?[A-Za-z_]+|[0-9]|\n[ \t]*| ?[^\sA-Za-z_0-9]+|\s+".into()),
        // The last three spell `<code>` piece by piece, the worst case for a special token of that name.
        merges: vec![
            pair("o", "d"),
            pair("c", "od"),
            pair("cod", "e"),
            pair("n", "d"),
            pair("e", "nd"),
            pair("<", "|"),
        ],
        ..TokenizerRecipe::bytes()
    };
    recipe.write(directory.path()).unwrap();
    let chat = Chat::open(directory.path()).unwrap();
    (directory, chat)
}

/// Text in which special strings, their halves, escapes and private-use characters are common.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("<|end|>".to_owned()),
        Just("<code>".to_owned()),
        Just("<|pad|>".to_owned()),
        Just("<|e".to_owned()),
        Just("nd|>".to_owned()),
        Just("\u{1b}[31m\u{7}".to_owned()),
        Just("\u{F0000}\u{F0002}".to_owned()),
        Just("\u{10FFFD}".to_owned()),
        ".*",
        "[a-z <|>]{0,6}",
    ];
    prop::collection::vec(piece, 0..6).prop_map(|v| v.concat())
}

fn plain(ids: &[u32]) -> bool {
    ids.iter().all(|&id| id > 2)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn encoding_round_trips_and_is_plain(text in text()) {
        let (_keep, chat) = tiny();
        let ids = chat.encode(&text);
        prop_assert!(plain(&ids), "{ids:?}");
        prop_assert_eq!(chat.decode(&ids), text);
    }

    #[test]
    fn contents_are_plain_inside_the_template(system in text(), user in text(), answer in text()) {
        let (_keep, chat) = tiny();
        let messages = [("system", &system), ("user", &user), ("assistant", &answer)]
            .map(|(role, content)| Message { role: role.into(), content: content.clone() });
        let prompt = chat.prompt(&messages[..2]).unwrap();
        prop_assert_eq!(&prompt.text, &format!("{system}<code>{user}\n"));
        prop_assert_eq!(chat.decode(&prompt.ids), prompt.text.as_str());
        let control: Vec<u32> = prompt.ids.iter().copied().filter(|&id| id <= 2).collect();
        prop_assert_eq!(control, [2]);

        let trained = chat.conversation(&messages).unwrap();
        prop_assert_eq!(&trained.ids[..prompt.ids.len()], &prompt.ids);
        let answer_ids = &trained.ids[trained.answers[0].clone()];
        prop_assert_eq!(answer_ids.last(), Some(&1));
        prop_assert!(plain(&answer_ids[..answer_ids.len() - 1]));
        prop_assert_eq!(chat.answer(answer_ids), answer);
    }
}

#[test]
fn ordinary_text_has_exactly_the_tokenizers_own_ids() {
    let (_keep, chat) = tiny();
    let own = Tokenizer::from_file(chat.path().join("tokenizer.json")).unwrap();
    for text in ["def f(x):\n    return x + 12\n", "end code encode <|", "  \n\n\t日本語 e\u{301}", ""] {
        assert_eq!(chat.encode(text), own.encode(text, false).unwrap().get_ids());
    }
    // The control: the tokenizer by itself does make a control token of such a string.
    assert_eq!(own.encode("<|end|>", false).unwrap().get_ids(), [1]);
    assert_eq!(chat.document("x").last(), Some(&1));
    assert_eq!(chat.vocab_size(), 3 + 256 + 6);
}
