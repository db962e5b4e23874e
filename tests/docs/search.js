// Types a word into the site's search and writes down where its results lead.
setTimeout(async () => {
  const say = (name, value) => document.documentElement.setAttribute(`data-${name}`, value);
  const until = async (ask) => {
    for (let turn = 0; turn < 60; turn += 1) {
      const found = ask();
      if (found) return found;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    throw new Error(`waited in vain: ${ask}`);
  };
  try {
    document.querySelector(".md-search__button").click();
    const roots = () => [document, ...[...document.querySelectorAll("*")].map((item) => item.shadowRoot).filter(Boolean)];
    const input = await until(() => roots().map((root) => root.querySelector("input[role=combobox]")).find(Boolean));
    input.focus();
    Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(input, "pseudo-healthy");
    input.dispatchEvent(new InputEvent("input", { bubbles: true }));
    const hits = () => [...input.getRootNode().querySelectorAll("a[href]")].map((link) => link.href);
    await until(() => hits().length > 3);
    say("found", hits().join(" "));
  } catch (error) {
    say("failed", String(error));
  }
}, 500);
