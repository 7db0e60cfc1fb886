//! Templates in the style of Llama 3.1 and of ChatML (Qwen), over a byte-level tokenizer with their special tokens.

use cognate_chat::{Chat, Special, TokenizerRecipe};
use cognate_records::Message;
use tempfile::TempDir;

fn message(role: &str, content: &str) -> Message {
    Message { role: role.into(), content: content.into() }
}

fn chat(specials: &[&str], bos: Option<&str>, end: &str, template: &str) -> (TempDir, Chat) {
    let directory = tempfile::tempdir().unwrap();
    let recipe = TokenizerRecipe {
        specials: specials.iter().map(|s| Special((*s).into())).collect(),
        bos: bos.map(str::to_owned),
        end: end.into(),
        pad: None,
        template: Some(template.into()),
        ..TokenizerRecipe::bytes()
    };
    recipe.write(directory.path()).unwrap();
    let chat = Chat::open(directory.path()).unwrap();
    (directory, chat)
}

fn llama() -> (TempDir, Chat) {
    chat(
        &["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        Some("<|begin_of_text|>"),
        "<|eot_id|>",
        include_str!("fixtures/llama-style.jinja"),
    )
}

fn chatml() -> (TempDir, Chat) {
    chat(&["<|im_start|>", "<|im_end|>"], None, "<|im_end|>", include_str!("fixtures/chatml-style.jinja"))
}

#[test]
fn llama_style_renders_as_transformers_does() {
    let (_keep, chat) = llama();
    let rendered = chat.prompt(&[message("system", " Be brief. "), message("user", " Sum it.\n")]).unwrap();
    assert_eq!(
        rendered.text,
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n\
         Today Date: 26 Jul 2024\n\nBe brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nSum it.<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\n"
    );
    assert_eq!(rendered.ids[..2], [0, 1], "control tokens of the template are single ids");
    assert_eq!(chat.decode(&rendered.ids), rendered.text);

    let dated = chat.with_variable("date_string", &"1 Jan 2030".into());
    assert!(dated.prompt(&[message("user", "x")]).unwrap().text.contains("Today Date: 1 Jan 2030\n"));
}

#[test]
fn chatml_style_trains_exactly_what_is_sampled() {
    let (_keep, chat) = chatml();
    let asked = [message("user", "Sum it.")];
    let prompt = chat.prompt(&asked).unwrap();
    assert_eq!(
        prompt.text,
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nSum it.<|im_end|>\n\
         <|im_start|>assistant\n"
    );
    let [user] = asked;
    let trained = chat.conversation(&[user, message("assistant", "print(1)\n")]).unwrap();
    assert_eq!(trained.ids[..prompt.ids.len()], prompt.ids);
    assert!(trained.weights[..prompt.ids.len()].iter().all(|&w| w == 0.0));
    assert!(trained.weights[prompt.ids.len()..].iter().all(|&w| w == 1.0));
    // The newline that the template writes after the end token is not trained and not kept.
    assert_eq!(chat.decode(&trained.ids[prompt.ids.len()..]), "print(1)\n<|im_end|>");
    assert_eq!(chat.answer(&trained.ids[prompt.ids.len()..]), "print(1)\n");
}

#[test]
fn every_answer_of_several_turns_is_trained_and_nothing_else() {
    for (_keep, chat) in [llama(), chatml()] {
        let messages = [
            message("user", "one"),
            message("assistant", "first"),
            message("user", "two <|im_end|> <|eot_id|>"),
            message("assistant", "second"),
        ];
        let trained = chat.conversation(&messages).unwrap();
        let answers: Vec<String> =
            trained.answers.iter().map(|r| chat.answer(&trained.ids[r.clone()])).collect();
        assert_eq!(answers, ["first", "second"]);
        let weighted: f32 = trained.weights.iter().sum();
        assert_eq!(weighted, ("first".len() + "second".len() + 2) as f32);
        for range in &trained.answers {
            assert!(trained.weights[range.clone()].iter().all(|&w| w == 1.0));
        }
        assert_eq!(trained.ids[..trained.answers[0].start], chat.prompt(&messages[..1]).unwrap().ids);
    }
}

#[test]
fn a_template_that_trains_something_else_than_it_asks_is_refused() {
    let (_keep, chat) = chat(
        &["<|end|>"],
        None,
        "<|end|>",
        "{% if add_generation_prompt %}ask {% else %}told {% endif %}{{ messages[0].content }}<|end|>",
    );
    let error = chat.conversation(&[message("user", "x"), message("assistant", "y")]).unwrap_err();
    assert!(error.is_data());
    let text = error.to_string();
    assert!(text.contains("tokenizer_config.json") && text.contains("does not start with"), "{text}");

    let (_keep, chat) = super_plain("{% for m in messages %}{{ m.content }}{% endfor %}");
    let text = chat.conversation(&[message("user", "x"), message("assistant", "y")]).unwrap_err().to_string();
    assert!(text.contains("no end token after answer 1"), "{text}");

    let text = chat.conversation(&[message("user", "x")]).unwrap_err().to_string();
    assert!(text.contains("no message of role"), "{text}");
}

fn super_plain(template: &str) -> (TempDir, Chat) {
    chat(&["<|end|>"], None, "<|end|>", template)
}

#[test]
fn malformed_directories_are_named() {
    let empty = tempfile::tempdir().unwrap();
    let error = Chat::open(empty.path()).unwrap_err();
    assert!(!error.is_data() && error.to_string().contains("tokenizer.json"), "{error}");

    std::fs::write(empty.path().join("tokenizer.json"), "{\"version\":").unwrap();
    assert!(Chat::open(empty.path()).unwrap_err().is_data());

    TokenizerRecipe::bytes().write(empty.path()).unwrap();
    std::fs::write(empty.path().join("tokenizer_config.json"), "{\"eos_token\": \"</s>\"}").unwrap();
    let text = Chat::open(empty.path()).unwrap_err().to_string();
    assert!(text.contains("eos_token \"</s>\" is not in the vocabulary"), "{text}");

    std::fs::write(empty.path().join("tokenizer_config.json"), "{}").unwrap();
    let text = Chat::open(empty.path()).unwrap_err().to_string();
    assert!(text.contains("no end token"), "{text}");

    TokenizerRecipe::bytes().write(empty.path()).unwrap();
    std::fs::write(empty.path().join("chat_template.jinja"), "{% for %}").unwrap();
    let text = Chat::open(empty.path()).unwrap_err().to_string();
    assert!(text.contains("chat_template.jinja: chat template: line 1"), "{text}");
}

#[test]
fn a_copied_directory_is_the_same_tokenizer() {
    let (_keep, chat) = llama();
    std::fs::write(chat.path().join("generation_config.json"), "{\"eos_token_id\": [3, 2]}").unwrap();
    let chat = Chat::open(chat.path()).unwrap();
    assert_eq!(chat.stop_ids(), [2, 3]);
    let copy = tempfile::tempdir().unwrap();
    chat.copy_to(copy.path()).unwrap();
    let copied = Chat::open(copy.path()).unwrap();
    assert_eq!(copied.fingerprint(), chat.fingerprint());
    assert_eq!(copied.stop_ids(), [2, 3]);
    let (_keep, other) = chatml();
    assert_ne!(other.fingerprint(), chat.fingerprint());
}
