// Leads the vendor's host name, which the public action has built in, to the store under test: the part that a team
// does with its DNS. Everything else of the client stays as it is.
const tls = require("tls");
const [host, port] = process.env.STORE_UNDER_TEST.split(":");
const connect = tls.connect;

tls.connect = function (...given) {
  const options = given.find((value) => value && typeof value === "object");
  if (options && options.host === "agent.api.stepsecurity.io") {
    options.servername = options.servername || options.host;
    options.host = host;
    options.port = Number(port);
    delete options.lookup;
  }
  return connect.apply(this, given);
};
