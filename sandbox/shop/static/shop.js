// The page of the sample shop: it calls Segment's browser client as a shop's page would.
(() => {
  const {writeKey, receiver} = document.currentScript.dataset;
  const ABANDONED_AFTER = 2000; // milliseconds
  const $ = (id) => document.getElementById(id);
  const client = window.AnalyticsNext.AnalyticsBrowser.load({writeKey, cdnURL: receiver});
  let token = sessionStorage.getItem("userToken");
  let items = [];
  let leaving = null;

  // Only a call with a user token is counted for the customer who is signed in.
  client.addSourceMiddleware(({payload, next}) => {
    if (token) payload.obj.context = {...payload.obj.context, userToken: token};
    next(payload);
  });

  // Shows a call, and whether Segue accepted it.
  async function sent(name, call) {
    const line = document.createElement("li");
    line.textContent = `${name} …`;
    $("log").append(line);
    const context = await call;
    const failed = context?.failedDelivery?.();
    line.textContent = failed ? `${name}: not accepted` : `${name}: accepted`;
    line.dataset.state = failed ? "failed" : "accepted";
  }

  function track(name, properties) {
    return sent(name, client.track(name, properties));
  }

  function cart() {
    return {
      cart_id: sessionStorage.getItem("cart"),
      items: items.map(({name, price}) => ({name, price, quantity: 1})),
      total: items.reduce((sum, {price}) => sum + price, 0),
      url: location.href,
    };
  }

  function show() {
    $("cart").textContent = items.length
      ? `In the cart: ${items.map(({name}) => name).join(", ")}.`
      : "The cart is empty.";
    $("buy").disabled = !items.length;
    const name = sessionStorage.getItem("name");
    $("customer").textContent = token ? `You are signed in as ${name}.` : "You are an anonymous visitor.";
    $("sign-in").hidden = Boolean(token);
    $("sign-out").hidden = !token;
  }

  function add(name, price) {
    if (!items.length) sessionStorage.setItem("cart", `cart-${crypto.randomUUID()}`);
    items.push({name, price});
    track("product_added", {name, price});
    clearTimeout(leaving);
    leaving = setTimeout(() => track("cart_abandoned", cart()), ABANDONED_AFTER);
    show();
  }

  async function signIn(name, email) {
    const anonymous_id = (await client.user()).anonymousId();
    const answer = await fetch("/shop/sign-in", {
      method: "POST",
      headers: {"Content-Type": "application/json"},
      body: JSON.stringify({name, email, anonymous_id}),
    });
    const signed = await answer.json();
    if (!answer.ok) {
      $("customer").textContent = `The sign-in failed: ${signed.error}`;
      return;
    }
    token = signed.userToken;
    sessionStorage.setItem("userToken", token);
    sessionStorage.setItem("name", signed.name);
    await sent("identify", client.identify(signed.userId));
    show();
  }

  $("sign-in").addEventListener("submit", (event) => {
    event.preventDefault();
    const {name, email} = event.target.elements;
    signIn(name.value, email.value);
  });
  $("sign-out").addEventListener("click", () => {
    token = null;
    sessionStorage.clear();
    items = [];
    clearTimeout(leaving);
    client.reset();
    show();
  });
  $("buy").addEventListener("click", () => {
    clearTimeout(leaving);
    track("order_completed", {total_gbp: cart().total, cart_id: cart().cart_id});
    items = [];
    show();
  });
  for (const button of document.querySelectorAll("[data-product]")) {
    const {product, price} = button.dataset;
    button.addEventListener("click", () => add(product, Number(price)));
  }
  // `segue demo` opens the page for a customer who is signed in already, and lets her leave a cart.
  // It measures how long her message takes, by the clock of the servers.
  async function play(given) {
    token = given.get("userToken");
    sessionStorage.setItem("name", given.get("name"));
    await sent("identify", client.identify(given.get("userId")));
    items = [{name: "Tent for Two Nights", price: 189}];
    sessionStorage.setItem("cart", "cart-ada");
    show();
    const {moment} = await (await fetch("/shop/moment")).json();
    await track("cart_abandoned", {...cart(), called_at: moment});
  }

  show();
  sent("page", client.page());
  const given = new URLSearchParams(location.hash.slice(1));
  if (given.has("userToken")) play(given);
})();
